"""`pretrain run` where something is wrong: one clear sentence, exit code 2, nothing lost."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from pretrain_runs import events, make_corpus, train_losses, write_config

from cpm_tune.backbone.ant.checkpoint import load_weights
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.common.folders import run_lock
from cpm_tune.pretrain import losses
from cpm_tune.pretrain import train as training

SMALL = ("--rows", 2, "--width", 64, "--shortest", 8, "--precision", "fp32", "--log-steps", 1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def words(corpus, tmp_path):
    """What starts a run, but for its length and its folder."""
    config = write_config(tmp_path / "config.json", corpus)
    return ("pretrain", "run", "--corpus", corpus.path, "--config", config, "--no-compile", *SMALL)


# --- a full disk --------------------------------------------------------------------------------

ROOM = 100_000  # bytes: enough for logs, too little for a checkpoint


def mount(folder):
    """Mount a small disk there; False where that is not permitted."""
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        return os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    except (OSError, AttributeError):
        return False


def unmount(folder):
    subprocess.run(["umount", str(folder)], check=True)


def ways():
    """A real small disk where one can be mounted; a limit on the size of files."""
    possible = ["limit"] if hasattr(resource, "RLIMIT_FSIZE") else []
    with tempfile.TemporaryDirectory() as folder:
        if mount(folder):
            unmount(folder)
            possible.insert(0, "tmpfs")
    return possible or [pytest.param("none", marks=pytest.mark.skip("no way to fill a disk"))]


@pytest.fixture(params=ways())
def full_disk(request, tmp_path):
    """A folder, a function that fills its disk, and one that makes room again."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "limit":
        before = resource.getrlimit(resource.RLIMIT_FSIZE)

        def limit(size):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

        yield folder, lambda: limit(ROOM), lambda: limit(before[0])
        limit(before[0])
    else:
        assert mount(folder)
        filler = folder / "filler"

        def fill():
            free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
            filler.write_bytes(bytes(free - ROOM))

        yield folder, fill, filler.unlink
        unmount(folder)


def test_the_last_good_checkpoint_survives_a_full_disk(full_disk, words, cli):
    folder, fill, make_room = full_disk
    out = folder / "out"
    assert cli(*words, "--out", out, "--steps", 2)[0] == 0
    fill()
    code, _, error = cli("pretrain", "run", "--out", out, "--resume", "--steps", 4)
    make_room()
    assert (code, error.count("\n")) == (2, 1)
    assert "step 4: the checkpoint could not be written" in error
    assert f"the last good one is kept in {out / 'checkpoint.pt'}" in error
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    assert state["progress"]["step"] == 2
    load_weights(open_folder(out / "backbone"), torch.float32)
    assert not list(out.glob("*.part"))
    assert cli("pretrain", "run", "--out", out, "--resume")[0] == 0
    assert [row[0] for row in train_losses(out)] == [1, 2, 3, 4]


def test_a_disk_without_room_for_a_first_checkpoint_is_one_sentence(full_disk, words, cli):
    folder, fill, make_room = full_disk
    fill()
    code, _, error = cli(*words, "--out", folder / "out", "--steps", 1)
    make_room()
    assert (code, "it would be the first" in error, error.count("\n")) == (2, True, 1)
    assert cli(*words, "--out", folder / "out", "--steps", 1)[0] == 0


def test_preparing_on_a_full_disk_is_one_sentence_and_can_be_repeated(
    full_disk, corpus, tmp_path, cli
):
    folder, fill, make_room = full_disk
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(chr(0x4E00 + i) * 9 + "天地玄黄" * 3 for i in range(9000)))
    arguments = ("pretrain", "prepare", text, "--vocab", corpus.vocabulary, "--out", folder / "p")
    arguments += ("--set", "max_repetition=1")
    fill()
    code, _, error = cli(*arguments)
    make_room()
    assert (code, "cannot be written" in error, error.count("\n")) == (2, True, 1)
    assert cli(*arguments)[0] == 0


# --- numbers that are not finite ----------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_with_step_sources_and_checkpoint(
    words, tmp_path, cli, monkeypatch
):
    out = tmp_path / "out"
    assert cli(*words, "--out", out, "--steps", 2)[0] == 0
    real = training.TargetLosses.__call__
    monkeypatch.setattr(
        training.TargetLosses, "__call__", lambda self, rows: real(self, rows) * float("nan")
    )
    code, _, error = cli("pretrain", "run", "--out", out, "--resume", "--steps", 4)
    assert (code, error.count("\n")) == (2, 1)
    assert "step 3: the loss is nan" in error
    assert "(sources of the batch: " in error
    assert {"verse", "other"} & set(error.replace(")", ",").replace(",", " ").split())
    assert f"the last good checkpoint is {out / 'checkpoint.pt'}" in error
    assert torch.load(out / "checkpoint.pt", weights_only=True)["progress"]["step"] == 2


BREAKING = ("--lr", 1e30, "--weight-decay", 1e12, "--warmup", 0)


def test_a_learning_rate_that_breaks_the_weights_never_becomes_a_checkpoint(words, tmp_path, cli):
    """The step's loss is finite, the weights after it are not."""
    out = tmp_path / "out"
    code, _, error = cli(*words, "--out", out, "--steps", 1, *BREAKING)
    assert (code, error.count("\n")) == (2, 1)
    assert "step 1: a weight is not finite" in error
    assert "there is no checkpoint yet" in error
    assert not (out / "checkpoint.pt").exists()
    assert cli(*words, "--out", out, "--steps", 1)[0] == 0  # the folder may be used again


# --- what is given ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--seconds", 0), "--seconds is 0, expected a number above 0"),
        (("--seconds", "nan"), "--seconds is nan"),
        (("--steps", 0), "--steps is 0, expected a whole number from 1"),
        (("--steps", 2, "--seconds", 3), "--seconds and --steps exclude each other"),
        ((), "give the length of the run"),
        (("--steps", 1, "--threads", 0), "--threads is 0"),
        (("--steps", 1, "--lr", -1), "--lr is -1"),
        (("--steps", 1, "--lr", 1e45), "at most 1e+30"),
        (("--steps", 1, "--last-lr", 2), "--last-lr is 2, expected a number from 0 to 1"),
        (("--steps", 1, "--rows", 0), "--rows is 0"),
        (("--steps", 1, "--width", 3), "--width 3: a row must contain more than its soft prompt"),
        (("--steps", 1, "--width", 1_000_000), "more than the"),
        (("--steps", 1, "--shortest", 5000), "has room for 60 tokens besides the soft prompt"),
        (("--steps", 1, "--seed", -1), "--seed is -1"),
        (("--steps", 1, "--log-steps", 0), "--log-steps is 0"),
        (("--steps", 1, "--weight", "verse=much"), "--weight verse=much: expected"),
        (("--steps", 1, "--weight", "vers=1"), "Did you mean 'verse'"),
        (("--steps", 1, "--weight", "verse=1", "--weight", "verse=2"), "verse is already 1"),
        (("--steps", 1, "--weight", "verse=1e308", "--weight", "other=1e308"), "0 to 1e+09"),
        (("--steps", 1, "--weight", "verse=0", "--weight", "other=0"), "a weight above 0"),
        (("--steps", 1, "--corpus", "nowhere"), "not a prepared corpus"),
        (("--steps", 1, "--config", "nowhere.json"), "not a CPM-Ant config"),
        (("--steps", 1, "--backbone", "cpm-ant-tiny"), "--backbone and --config exclude"),
    ],
    ids=str,
)
def test_a_wrong_option_is_one_sentence_and_starts_nothing(words, tmp_path, cli, change, message):
    code, _, error = cli(*words, "--out", tmp_path / "out", *change)
    assert (code, error.count("\n")) == (2, 1)
    assert message in error
    assert not (tmp_path / "out/run.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 99}, "vocab_size is 99"),
        ({"dim_haed": 8}, "no key 'dim_haed'. Did you mean 'dim_head'?"),
        ({"num_layers": 10**12}, "expected a whole number above 0, below 2^31"),
        ({"prompt_types": 2}, "2 prompt_types"),
        ({"prompt_length": 300}, "more than its soft prompt"),
    ],
)
def test_a_config_that_does_not_fit_is_one_sentence(words, corpus, tmp_path, cli, change, message):
    write_config(tmp_path / "config.json", corpus, **change)
    code, _, error = cli(*words, "--out", tmp_path / "out", "--steps", 1)
    assert (code, error.count("\n")) == (2, 1)
    assert message in error


def test_a_backbone_with_another_vocabulary_is_refused(corpus, tmp_path, cli):
    start = ("--corpus", corpus.path, "--backbone", "cpm-ant-tiny", "--steps", 1)
    code, _, error = cli("pretrain", "run", "--out", tmp_path / "out", *start)
    assert (code, "pretrain prepare --vocab" in error, error.count("\n")) == (2, True, 1)


def test_without_a_compiler_the_way_out_is_named(words, tmp_path, cli, monkeypatch):
    from torch._dynamo.exc import BackendCompilerFailed

    def no_compiler(function, dynamic):
        def call(*arguments):
            raise BackendCompilerFailed(function, RuntimeError("no C++ compiler"), None)

        return call

    monkeypatch.setattr(losses.torch, "compile", no_compiler)
    compiled = [word for word in words if word != "--no-compile"]
    code, _, error = cli(*compiled, "--out", tmp_path / "out", "--steps", 1)
    assert (code, error.count("\n")) == (2, 1)
    assert "no C++ compiler" in error
    assert "--no-compile" in error
    assert cli(*words, "--out", tmp_path / "out", "--steps", 1)[0] == 0


# --- the folder ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["backbone/notes.txt", "log.jsonl", "run.json", "notes.part"])
def test_a_folder_with_other_files_is_not_touched(words, tmp_path, cli, name):
    mine = tmp_path / "mine" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("{}")
    code, _, error = cli(*words, "--out", tmp_path / "mine", "--steps", 1)
    assert (code, error.count("\n")) == (2, 1)
    assert "contains other files" in error or "not that of a `pretrain run`" in error
    assert mine.read_text() == "{}"
    assert not (tmp_path / "mine/.locks").exists()


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_a_backbone_of_the_users_is_not_replaced_when_resuming(words, tmp_path, cli, kind):
    out = tmp_path / "out"
    assert cli(*words, "--out", out, "--steps", 1)[0] == 0
    mine = out / "backbone"
    shutil.rmtree(mine)
    if kind == "file":
        mine.write_text("mine")
    elif kind == "link":
        mine.symlink_to("elsewhere")
    else:
        mine.mkdir()
        (mine / "notes.txt").write_text("mine")
    code, _, error = cli("pretrain", "run", "--out", out, "--resume", "--steps", 2)
    assert (code, error.count("\n")) == (2, 1)
    assert "did not write and would replace" in error
    assert mine.is_symlink() or mine.is_file() or (mine / "notes.txt").is_file()


@pytest.mark.parametrize("place", ["file", "below a file", "nowhere"])
def test_a_folder_that_cannot_be_made_is_one_sentence(words, tmp_path, cli, place):
    (tmp_path / "file").write_text("")
    path = {
        "file": tmp_path / "file",
        "below a file": tmp_path / "file/out",
        "nowhere": Path("/proc/nowhere/out"),
    }[place]
    code, _, error = cli(*words, "--out", path, "--steps", 1)
    assert (code, "cannot be written" in error, error.count("\n")) == (2, True, 1)


def test_two_runs_in_one_folder_are_refused(words, tmp_path, cli):
    with run_lock(tmp_path / "out", "pretrain", wait=False):
        code, _, error = cli(*words, "--out", tmp_path / "out", "--steps", 1)
    assert (code, "another process is working" in error) == (2, True)


@pytest.mark.slow
def test_a_kill_while_the_backbone_is_replaced_loses_none(words, tmp_path):
    """Wherever the kill falls between checkpoint and rename, one exported folder is whole."""
    killer = (
        "import os, sys\n"
        "import cpm_tune.commands.cli\n"
        "real, left = os.replace, [int(sys.argv.pop(1))]\n"
        "def replace(old, new):\n"
        "    left[0] -= os.path.basename(new) in ('backbone', 'backbone.old')\n"
        "    if not left[0]: os._exit(9)\n"
        "    return real(old, new)\n"
        "os.replace = replace\n"
        "sys.exit(cpm_tune.commands.cli.main(sys.argv[1:]))\n"
    )
    out = tmp_path / "out"
    command = [*map(str, words), "--out", str(out), "--steps", "2", "--checkpoint-minutes", "0"]
    done = subprocess.run(
        [sys.executable, "-c", killer, "3", *command], cwd=REPOSITORY, capture_output=True
    )
    assert done.returncode == 9  # in the second export, when the old one has been moved aside
    whole = [p for p in out.iterdir() if p.is_dir() and (p / "model.safetensors").is_file()]
    assert whole
    for folder in whole:
        load_weights(open_folder(folder), torch.float32)
    resumed = [*command[:2], "--out", str(out), "--resume"]
    done = subprocess.run([sys.executable, "tune.py", *resumed], cwd=REPOSITORY)
    assert done.returncode == 0
    assert events(out)[-1]["event"] == "end"
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == [".locks", "backbone"]
