"""A full disk, and a process killed while it writes: one sentence that names the folder, whole
files or none, and nothing of a dead process after the next command.

The disk is full by a limit on the size of files: every write fails as it would there (File too
large). So output is captured in memory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import CLI, rows
from kills import ended, in_child
from safetensors.torch import load_file, save_file

from cpm_tune.commands.cli import main
from cpm_tune.common.saved import SAFETENSORS_DTYPES, read_state, write_state, write_tensors
from cpm_tune.common.writing import scratch_folder
from cpm_tune.data.splits import find_splits
from cpm_tune.data.store import read_split
from cpm_tune.errors import UserError
from cpm_tune.task.registry import load_task

resource = pytest.importorskip("resource")
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX"),
]
STATE = {name: torch.arange(400.0) for name in "abc"} | {"fingerprint": {"run": "1"}}


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> CLI:
    """Run a command; return exit code, stdout, stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_backbone: Path) -> Path:
    """A finished run."""
    place = tmp_path_factory.mktemp("run")
    for split, n in (("train", 8), ("dev", 4), ("test", 4)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(n))
        (place / f"{split}.jsonl").write_text(text, encoding="utf-8")
    words = ["--task", "lcqmc", "--data", place, "--backbone", small_backbone, "--control", "none"]
    words += ["--set", "train.max_steps=1", "--out", place / "results"]
    assert main([str(word) for word in words]) == 0
    (run,) = (place / "results").glob("lcqmc.*")
    return run


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"about": '{"a": "é/\x7f\\\t"}'}])
def test_tensors_are_written_as_by_the_library(
    metadata: dict[str, str] | None, tmp_path: Path
) -> None:
    state = {
        f"{name}.{dtype}": torch.randn(3, 5).to(dtype)
        for dtype in SAFETENSORS_DTYPES
        for name in "ba"
    }
    state |= {"int": torch.arange(3), "int32": torch.arange(3).int(), "bool": torch.ones(2) > 0}
    state |= {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 3), "字": torch.zeros(1).half()}
    save_file(state, tmp_path / "expected", metadata=metadata)
    write_tensors(tmp_path / "written", state, metadata)
    assert (tmp_path / "written").read_bytes() == (tmp_path / "expected").read_bytes()
    write_tensors(tmp_path / "turned", {"a": torch.arange(6.0).reshape(2, 3).T}, metadata)
    assert load_file(tmp_path / "turned")["a"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_a_checkpoint_that_does_not_fit_is_one_sentence_at_every_size(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    write_state(path, STATE, 1, "--resume")
    size = path.stat().st_size
    for limit in range(0, size, 331):
        with room_for(limit), pytest.raises(UserError) as raised:
            write_state(path, {**STATE, "a": torch.zeros(400)}, 2, "--resume")
        assert str(raised.value) == (
            f"step 2: the checkpoint could not be written to {tmp_path} (File too large); the last "
            f"good one is kept in {path}. Make room and resume with --resume."
        )
        assert list(tmp_path.iterdir()) == [path]
    state = read_state(path, ["a"], {"run": "1"}, "")
    assert torch.equal(state["a"], STATE["a"])  # type: ignore[call-overload]


@pytest.mark.parametrize("to", ["peft", "opendelta", "hf", "merged"])
def test_an_export_that_does_not_fit_is_one_sentence_and_leaves_nothing(
    to: str, run: Path, tmp_path: Path, cli: CLI
) -> None:
    out = tmp_path / "out"
    for limit in (1, 700):
        with room_for(limit):
            code, _, error = cli("export", run, "--to", to, "--out", out)
        assert code == 2
        assert error == (
            f"error: --out {out}: cannot be written (File too large); make room, or choose another "
            "path.\n"
        )
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["native", "hf", "reference"])
def test_a_conversion_that_does_not_fit_is_one_sentence_and_leaves_nothing(
    to: str, small_backbone: Path, tmp_path: Path, cli: CLI
) -> None:
    for limit in (1, 500, 3_000, 20_000):
        with room_for(limit):
            code, _, error = cli("convert", small_backbone, tmp_path / "out", "--to", to)
        assert (code, error.count("\n")) == (2, 1)
        assert error.startswith(f"error: {tmp_path / 'out'}: cannot be written (")
        assert "make room" in error
        assert list(tmp_path.iterdir()) == []


def test_a_prediction_that_does_not_fit_names_its_folder(
    run: Path, tmp_path: Path, cli: CLI
) -> None:
    words = ["predict", run, "--out", tmp_path / "out", "--data", run.parent.parent]
    assert cli(*words[:2], "--out", tmp_path / "first", *words[4:])[0] == 0  # fills the cache
    with room_for(40):
        code, _, error = cli(*words)
    assert (code, error.count("\n")) == (2, 1)
    assert f"--out {tmp_path / 'out'}: cannot be written (File too large)" in error
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


def test_a_full_cache_is_named_as_the_cache(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    task = load_task("lcqmc")
    split = find_splits(task, data, ("train",))["train"]
    with room_for(100), pytest.raises(UserError) as raised:
        read_split(task, split)
    cache = tmp_path / "cache" / "cpm-tune" / "data"
    assert str(raised.value) == (
        f"the cache folder {cache}: cannot be written (File too large); make room there, or set "
        "XDG_CACHE_HOME to another folder."
    )
    assert list(cache.iterdir()) == []
    assert len(read_split(task, split)) == 40


def test_nothing_of_a_killed_process_stays_in_the_cache(tmp_path: Path) -> None:
    def killed() -> None:
        with scratch_folder(tmp_path) as scratch:
            (scratch / "half").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    assert ended(in_child(killed)) == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    with scratch_folder(tmp_path) as first, scratch_folder(tmp_path) as second:
        assert sorted(tmp_path.iterdir()) == sorted((first, second))  # living ones stay
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", [0, 1])
def test_nothing_of_a_process_killed_while_it_writes_tensors_stays(
    step: int, tmp_path: Path
) -> None:
    """The kill falls before the flush, and before the rename."""
    path, state = tmp_path / "delta.safetensors", {"a": torch.zeros(1_000)}
    write_tensors(path, state)

    def killed() -> None:
        def kill(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(os, ("fsync", "replace")[step], kill)
        write_tensors(path, {"a": torch.ones(1_000)})

    assert ended(in_child(killed)) == -signal.SIGKILL
    assert load_file(path)["a"].sum() == 0
    assert {p.name for p in tmp_path.iterdir()} == {path.name, f"{path.name}.part"}
    write_tensors(path, {"a": torch.ones(1_000)})
    assert list(tmp_path.iterdir()) == [path]
    assert load_file(path)["a"].sum() == 1_000
