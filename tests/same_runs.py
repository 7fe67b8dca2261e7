"""What a run of several processes has to share with the one of a single process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from kills import ended, in_child

from cpm_tune.commands.cli import main
from cpm_tune.schema.record import RunRecord, read_record
from cpm_tune.schema.spec import Recipe

Run = tuple[RunRecord, list[dict[str, Any]]]


def read_run(folder: Path) -> Run:
    """The record of a finished run and its predictions of dev and test."""
    lines = [
        json.loads(line)
        for split in ("dev", "test")
        for line in (folder / f"predictions.{split}.jsonl").read_text().splitlines()
    ]
    return read_record(folder / "run.json"), lines


def curve(record: RunRecord) -> list[float]:
    assert record.training is not None
    return [value for point in record.training.curve for value in (point.loss, point.dev)]


def assert_same(one: Run, several: Run) -> None:
    """The same to 1e-5 for the same weights. Training may come out apart in its weights: Adam makes
    whole steps of what is rounding only (a bias of the keys has no gradient in exact numbers)."""
    (record, lines), (other, found) = one, several
    assert [line["id"] for line in found] == [line["id"] for line in lines]
    assert [line["prediction"] for line in found] == [line["prediction"] for line in lines]
    for line, again in zip(lines, found, strict=True):
        near = 1e-5 if record.training is None else 1e-3
        assert again["scores"] == pytest.approx(line["scores"], abs=near)
    assert other.scores == record.scores
    if record.training is not None:
        assert curve(other) == pytest.approx(curve(record), abs=1e-4)


def stop_in_step_3(rank: int) -> None:
    """In a child process: the second of several gets SIGTERM in its third step."""
    real = Recipe.learning_rate

    def learning_rate(recipe: Any, step: int, total: int) -> float:
        if step == 3 and rank == 1:
            signal.raise_signal(signal.SIGTERM)
        return real(recipe, step, total)

    Recipe.learning_rate = learning_rate  # type: ignore[method-assign]


def in_group(world_size: int, action: Callable[[int], object]) -> list[int]:
    """Start forked children with torchrun's variables; `action` is called in each, with its rank.
    Return their process ids."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def act(rank: int) -> None:
        if world_size > 1:
            os.environ.update(
                MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=str(rank), LOCAL_RANK=str(rank)
            )
            os.environ["WORLD_SIZE"] = str(world_size)
        action(rank)

    return [in_child(lambda rank=rank: act(rank)) for rank in range(world_size)]


def in_two(*words: object) -> None:
    """Run tune.py as `--nproc 2` does, in forked children: they have imported everything."""

    def run(rank: int) -> None:
        assert main([str(word) for word in words]) == 0

    assert [ended(child, within=120) for child in in_group(2, run)] == [0, 0]


_LINES = """
import json, sys
from cpm_tune.commands.cli import main
if __name__ == "__main__":  # which Windows' workers import
    for words in json.loads(sys.argv[1]):
        assert main(words) == 0, words
"""


def in_one_process(lines: Sequence[Sequence[object]], site: Path) -> str:
    """Carry out command lines in one new process, whose first import is `site`/sitecustomize.py.
    Each imports what those before it did not. Return what they print."""
    program = site / "lines.py"
    program.write_text(_LINES)
    paths = os.pathsep.join([str(site), str(REPOSITORY)])
    done = subprocess.run(
        [sys.executable, program, json.dumps([list(map(str, line)) for line in lines])],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def ended_in_step_3(*words: object) -> None:
    """Run tune.py in a child that ends in its third step, as if it had been killed there."""

    def run() -> None:
        real = Recipe.learning_rate

        def learning_rate(recipe: Any, step: int, total: int) -> float:
            return os._exit(9) if step == 3 else real(recipe, step, total)

        Recipe.learning_rate = learning_rate  # type: ignore[method-assign]
        main([str(word) for word in words])

    assert ended(in_child(run)) == 9
