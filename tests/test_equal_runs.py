"""scripts/equal_runs.py notices whatever two checkouts compute differently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import equal_runs
import pytest


def run(out: Path, name: str = "lcqmc.lora.s1.0", delta: bytes = b"weights", **more: Any) -> Path:
    """A results folder with one run, with `more` in its record."""
    folder = out / name
    folder.mkdir(parents=True)
    training = {"curve": [{"step": 2, "loss": 0.5, "dev": 0.75}], "seconds": 3.0}
    record = {"status": "finished", "scores": {"test": {"accuracy": {"value": 0.5}}}, **more}
    (folder / "run.json").write_text(json.dumps({"training": training, **record}))
    (folder / "delta.safetensors").write_bytes(delta)
    (folder / "predictions.test.jsonl").write_text("{}\n")
    return out


def test_runs_that_differ_in_times_only_are_equal(tmp_path: Path) -> None:
    training = {"curve": [{"step": 2, "loss": 0.5, "dev": 0.75}], "seconds": 4.0}
    one, two = run(tmp_path / "one"), run(tmp_path / "two", training=training)
    assert equal_runs.compare(one, two) == []


@pytest.mark.parametrize(
    ("difference", "names"),
    [
        ({"name": "lcqmc.lora.s1.1"}, "runs: lcqmc.lora.s1.0 here, lcqmc.lora.s1.1 there"),
        ({"delta": b"others"}, "delta.safetensors: "),
        (
            {"scores": {"test": {"accuracy": {"value": 0.6}}}},
            "scores.test.accuracy.value: 0.5 here",
        ),
        (
            {"training": {"curve": [{"step": 2, "loss": 0.4, "dev": 0.75}]}},
            "curve.0.loss: 0.5 here",
        ),
        ({"training": None}, "curve.0.step: 2 here, None there"),
        ({"status": "failed"}, "status: finished here, failed there"),
    ],
)
def test_a_difference_is_named(difference: dict[str, Any], names: str, tmp_path: Path) -> None:
    one, two = run(tmp_path / "one"), run(tmp_path / "two", **difference)
    assert names in equal_runs.compare(one, two)[0]


def test_a_missing_file_or_run_is_a_difference(tmp_path: Path) -> None:
    one, two = run(tmp_path / "one"), run(tmp_path / "two")
    (two / "lcqmc.lora.s1.0" / "predictions.test.jsonl").unlink()
    (difference,) = equal_runs.compare(one, two)
    assert difference.startswith("predictions.test.jsonl: ")
    assert difference.endswith(" here, None there")
    assert equal_runs.compare(tmp_path / "none", tmp_path / "none") == [
        "runs: none here, none there"
    ]
