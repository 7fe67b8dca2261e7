"""Reports a run in training to its sinks: steps and evaluations as entries of the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cpm_tune.common.folders import LOG
from cpm_tune.common.reading import parse_json
from cpm_tune.tracking.sink import Entry
from cpm_tune.tuning.state import Evaluation, State, Step

_SHOWN = ("loss", "lr", "grad_norm")


def reporter(metric: str, *logs: Callable[[Entry], None]) -> Callable[[Step | Evaluation], None]:
    """What the training loop calls with every step and evaluation: logs each as an entry."""

    def report(event: Step | Evaluation) -> None:
        entry = _entry({**vars(event), "time": round(time.time(), 3)}, metric)
        for log in logs:
            log(entry)

    return report


def entries_until(folder: Path, state: State, metric: str) -> list[Entry]:
    """The entries of a run's log file up to a state: its steps and its evaluations."""
    evaluated = {evaluation.step for evaluation in state.curve}
    entries = []
    if (folder / LOG).is_file():
        for line in (folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = _entry(parse_json(line, finite=False), metric)
            except (ValueError, KeyError, TypeError):  # cut off by a crash
                continue
            if entry.step in evaluated if "dev" in entry.line else entry.step <= state.step:
                entries.append(entry)
    return entries


def _entry(line: Mapping[str, Any], metric: str) -> Entry:
    """A line of the log as an entry, with the values that are shown of it."""
    values = {f"train/{key}": float(line[key]) for key in _SHOWN if "dev" not in line}
    if "dev" in line:
        values = {f"dev/{metric}": float(line["dev"])}
    return Entry(line["step"], line["time"], values, line)
