"""What a run of several processes has to share with the one of a single process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

from cpm_tune.schema.record import RunRecord, read_record

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
    from cpm_tune.schema.spec import Recipe

    real = Recipe.learning_rate

    def learning_rate(recipe: Any, step: int, total: int) -> float:
        if step == 3 and rank == 1:
            signal.raise_signal(signal.SIGTERM)
        return real(recipe, step, total)

    Recipe.learning_rate = learning_rate  # type: ignore[method-assign]


def command(*words: object) -> subprocess.CompletedProcess[str]:
    """Run tune.py in a process of its own."""
    given = [sys.executable, "tune.py", *map(str, words)]
    return subprocess.run(given, capture_output=True, text=True, cwd=REPOSITORY)


_ENDS_IN_STEP_3 = """
import os, sys
from cpm_tune.schema.spec import Recipe
real = Recipe.learning_rate
def rate(self, step, total):
    return os._exit(9) if step == 3 else real(self, step, total)
Recipe.learning_rate = rate
from cpm_tune.commands.cli import main
sys.exit(main(sys.argv[1:]))
"""


def ended_in_step_3(*words: object) -> None:
    """Run tune.py in a process that ends in its third step, as if it had been killed there."""
    given = [sys.executable, "-c", _ENDS_IN_STEP_3, *map(str, words)]
    assert subprocess.run(given, capture_output=True, cwd=REPOSITORY).returncode == 9
