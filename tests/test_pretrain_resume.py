"""`--resume`: the losses of an uninterrupted run, and what it refuses to go on with."""

import contextlib
import json
import os
import shutil
import signal
import time
from dataclasses import replace

import pytest
import torch
from kills import FORKS, ended, in_child
from pretrain_runs import (
    SETTINGS,
    assert_resumes_exactly,
    config_for,
    events,
    interrupt_in,
    make_corpus,
    run,
    train_losses,
    write_config,
)

from cpm_tune.backbone.ant.checkpoint import load_weights
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.backbone.opening import random_backbone
from cpm_tune.commands.cli import main
from cpm_tune.common.folders import run_lock
from cpm_tune.errors import UserError
from cpm_tune.pretrain.train import Intervals, train

EVERY_THIRD = Intervals(log_steps=3, checkpoint_minutes=1e9, heldout_minutes=1e9)
SMALL = ("--rows", 2, "--width", 64, "--shortest", 8, "--no-compile", "--precision", "fp32")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def start(corpus, tmp_path, cli):
    """Start a run of three steps by the command line; returns its folder."""
    config = write_config(tmp_path / "config.json", corpus)
    out = tmp_path / "out"
    words = ("--corpus", corpus.path, "--config", config, "--steps", 3, "--log-steps", 1)
    code, _, error = cli("pretrain", "run", "--out", out, *words, *SMALL)
    assert code == 0, error
    return out


def run_to(corpus, settings, **options):
    """A function that trains to a folder, for `assert_resumes_exactly`."""
    return lambda out, **more: run(corpus, out, settings, **options, **more)


@pytest.mark.parametrize(
    "change",
    [{"optimiser": "muon"}, {"optimiser": "adamw"}, {"bf16": True}],
    ids=["muon", "adamw", "bf16"],
)
def test_a_resumed_run_has_the_losses_and_weights_of_an_uninterrupted_one(
    corpus, tmp_path, change, monkeypatch
):
    train_to = run_to(corpus, replace(SETTINGS, **change))
    assert_resumes_exactly(train_to, tmp_path, monkeypatch)


def test_the_means_of_the_log_go_on_in_the_middle_of_an_interval(corpus, tmp_path, monkeypatch):
    assert_resumes_exactly(run_to(corpus, SETTINGS, intervals=EVERY_THIRD), tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")  # compiled sums over several threads round as they come
def test_a_compiled_bf16_run_resumes_exactly(corpus, tmp_path, monkeypatch):
    from torch._inductor import config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    settings = replace(SETTINGS, steps=6, bf16=True, compiled=True)
    with inductor.patch(compile_threads=1):  # a pool of processes costs more than it saves
        train_to = run_to(corpus, settings, layers=1)
        assert_resumes_exactly(train_to, tmp_path, monkeypatch, steps=6)


def test_a_run_by_seconds_keeps_its_training_time_in_the_checkpoint(corpus, tmp_path):
    out = tmp_path / "out"
    run(corpus, out, replace(SETTINGS, steps=0, seconds=0.3))
    before = torch.load(out / "checkpoint.pt", weights_only=True)["progress"]
    assert before["seconds"] >= 0.3
    run(corpus, out, replace(SETTINGS, steps=0, seconds=before["seconds"] + 0.1), resume=True)
    after = torch.load(out / "checkpoint.pt", weights_only=True)["progress"]
    assert after["step"] > before["step"]
    assert after["seconds"] >= before["seconds"] + 0.1


def test_a_finished_run_is_left_alone_and_a_new_length_is_remembered(start, cli, monkeypatch):
    before = (start / "log.jsonl").read_text()
    code, said, _ = cli("pretrain", "run", "--out", start, "--resume")
    assert (code, "already finished at step 3" in said) == (0, True)
    assert (start / "log.jsonl").read_text() == before
    with monkeypatch.context() as patch:
        interrupt_in(4, patch)
        code, _, error = cli("pretrain", "run", "--out", start, "--resume", "--steps", 6)
    assert (code, "is saved, continue with --resume" in error) == (130, True)
    assert cli("pretrain", "run", "--out", start, "--resume")[0] == 0
    assert [row[0] for row in train_losses(start)] == [1, 2, 3, 4, 5, 6]
    code, _, error = cli("pretrain", "run", "--out", start, "--resume", "--steps", 2)
    assert (code, "already at step 6" in error) == (2, True)


def test_resuming_works_from_another_folder(corpus, tmp_path, cli, monkeypatch):
    write_config(tmp_path / "config.json", corpus)
    monkeypatch.chdir(tmp_path)
    words = ("--corpus", corpus.path, "--config", "config.json", "--steps", 1, *SMALL)
    assert cli("pretrain", "run", "--out", "out", *words)[0] == 0
    monkeypatch.chdir("/")
    assert cli("pretrain", "run", "--out", tmp_path / "out", "--resume", "--steps", 2)[0] == 0


def test_a_corpus_that_was_moved_is_given_with_corpus(tmp_path, cli):
    corpus = make_corpus(tmp_path)
    config = write_config(tmp_path / "config.json", corpus)
    out = ("--out", tmp_path / "out")
    words = ("--corpus", corpus.path, "--config", config, "--steps", 1, *SMALL)
    assert cli("pretrain", "run", *out, *words)[0] == 0
    corpus.path.rename(tmp_path / "moved")
    code, _, error = cli("pretrain", "run", *out, "--resume", "--steps", 2)
    assert (code, error.count("\n")) == (2, 1)
    assert "If the run's corpus was moved, give its folder with --corpus" in error
    moved = ("--corpus", tmp_path / "moved")
    assert cli("pretrain", "run", *out, "--resume", "--steps", 2, *moved)[0] == 0
    assert cli("pretrain", "run", *out, "--resume", "--steps", 3)[0] == 0  # it is remembered


# --- refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--lr", 1), "--lr cannot change"),
        (("--weight", "verse=5"), "--weight cannot change"),
        (("--precision", "bf16"), "--precision cannot change"),
        (("--backbone", "cpm-ant-tiny"), "--backbone cannot change"),
    ],
)
def test_only_length_and_reporting_may_change(start, cli, words, message):
    code, _, error = cli("pretrain", "run", "--out", start, "--resume", *words)
    assert (code, message in error, error.count("\n")) == (2, True, 1)


def test_a_checkpoint_of_another_config_is_refused(start, cli, corpus, tmp_path):
    kept = (start / "checkpoint.pt").read_bytes()
    write_config(tmp_path / "config.json", corpus, dim_ff=64)
    code, _, error = cli("pretrain", "run", "--out", start, "--resume", "--steps", 5)
    assert (code, "belongs to another config" in error, error.count("\n")) == (2, True, 1)
    assert (start / "checkpoint.pt").read_bytes() == kept


def test_a_checkpoint_of_another_corpus_is_refused(start, cli, tmp_path):
    other = make_corpus(tmp_path, ("other", "verse"))  # the same vocabulary, other documents
    code, _, error = cli("pretrain", "run", "--out", start, "--resume", "--corpus", other.path)
    assert (code, "belongs to another corpus" in error, error.count("\n")) == (2, True, 1)


def test_a_checkpoint_of_other_settings_is_refused(corpus, tmp_path):
    run(corpus, tmp_path / "out")
    with pytest.raises(UserError, match="another settings"):
        run(corpus, tmp_path / "out", replace(SETTINGS, seed=2), resume=True)
    model = random_backbone(config_for(corpus, dim_ff=64), 1, torch.float32)
    tokenizer = Tokenizer.from_file(corpus.vocabulary)
    with pytest.raises(UserError, match="another config"):
        train(model, tokenizer, corpus, SETTINGS, tmp_path / "out", resume=True)


@pytest.mark.parametrize("kept", [0, 1, 3000, -1], ids=["empty", "byte", "start", "last byte"])
def test_a_broken_checkpoint_is_one_sentence(start, cli, kept):
    file = start / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:kept])
    code, _, error = cli("pretrain", "run", "--out", start, "--resume", "--steps", 5)
    assert (code, "not a readable checkpoint" in error, error.count("\n")) == (2, True, 1)


def test_a_corpus_cut_short_is_refused(start, cli, corpus, tmp_path):
    whole = (corpus.path / "verse.train.tokens.npy").read_bytes()
    try:
        (corpus.path / "verse.train.tokens.npy").write_bytes(whole[: len(whole) // 2])
        code, _, error = cli("pretrain", "run", "--out", start, "--resume", "--steps", 5)
    finally:
        (corpus.path / "verse.train.tokens.npy").write_bytes(whole)
    assert (code, "prepare again" in error, error.count("\n")) == (2, True, 1)


def test_folders_without_a_run_are_refused(tmp_path, cli):
    broken = {"out": "x", "steps": "abc"}
    for name, content in (("nothing", None), ("tuned", {"schema_version": 1}), ("types", broken)):
        (tmp_path / name).mkdir()
        if content:
            (tmp_path / name / "run.json").write_text(json.dumps(content))
        code, _, error = cli("pretrain", "run", "--out", tmp_path / name, "--resume")
        assert (code, error.count("\n")) == (2, 1)
        assert ("there is no run to resume" in error) or ("not that of a `pretrain run`" in error)


def test_a_folder_where_another_process_is_at_work_is_refused(start, cli):
    with run_lock(start, "pretrain", wait=False):
        code, _, error = cli("pretrain", "run", "--out", start, "--resume", "--steps", 5)
    assert (code, "another process is working" in error) == (2, True)


@pytest.mark.parametrize("kind", ["file", "folder", "folder with one more file"])
def test_what_the_run_did_not_write_is_never_replaced(start, cli, kind):
    mine = start / "backbone"
    if kind != "folder with one more file":
        shutil.rmtree(mine)
    if kind == "file":
        mine.write_text("mine")
    else:
        mine.mkdir(exist_ok=True)
        (mine / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in start.rglob("*") if path.is_file()}
    code, _, error = cli("pretrain", "run", "--out", start, "--resume", "--steps", 5)
    assert (code, error.count("\n")) == (2, 1)
    assert f"{mine} contains files that `pretrain run` did not write" in error
    assert {path: path.read_bytes() for path in before} == before


# --- interrupted --------------------------------------------------------------------------------


@FORKS
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_from_outside_saves_and_the_run_goes_on(corpus, tmp_path, cli, number):
    config = write_config(tmp_path / "config.json", corpus)
    out = tmp_path / "out"
    words = ["--corpus", corpus.path, "--config", config, "--steps", "100000", "--log-steps", "1"]
    said = tmp_path / "stderr"

    def act() -> None:
        with said.open("w") as file, contextlib.redirect_stderr(file):
            code = main(["pretrain", "run", "--out", str(out), *map(str, (*words, *SMALL))])
        os._exit(code)

    child = in_child(act)
    while not ((out / "log.jsonl").is_file() and train_losses(out)):
        assert os.waitpid(child, os.WNOHANG)[0] == 0, said.read_text()
        time.sleep(0.05)
    os.kill(child, number)
    assert ended(child) == 128 + number
    error = said.read_text()
    assert error.splitlines()[-1].endswith("is saved, continue with --resume.")
    assert "Traceback" not in error
    step = torch.load(out / "checkpoint.pt", weights_only=True)["progress"]["step"]
    load_weights(open_folder(out / "backbone"), torch.float32)
    assert cli("pretrain", "run", "--out", out, "--resume", "--steps", step + 1)[0] == 0
    assert [row[0] for row in train_losses(out)] == list(range(1, step + 2))
    assert events(out)[-1]["event"] == "end"
