"""What a results folder says of a suite's cells: done, begun, failed; and how long runs took.

A failed cell leaves a note in `OUT/.bench/failed/RUN_ID.json` until it is finished. Everything is
written atomically; the folder can be read at any moment.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cpm_tune.bench.cells import Cell
from cpm_tune.common.folders import CHECKPOINT, RECORD, partial_folder
from cpm_tune.common.reading import read_json
from cpm_tune.common.writing import write_atomically
from cpm_tune.errors import UserError
from cpm_tune.runs.finished import finished
from cpm_tune.schema.record import RunRecord

NOTES = Path(".bench") / "failed"
State = Literal["done", "failed", "unfinished", "new"]


@dataclass(frozen=True)
class Failure:
    """Why a cell failed: one sentence; `detail` is a traceback or the last words of a process."""

    run_id: str
    name: str
    error: str
    detail: str = ""


def write_failure(out: Path, failure: Failure) -> None:
    """Keep a failure until the cell is finished."""
    (out / NOTES).mkdir(parents=True, exist_ok=True)
    text = json.dumps(vars(failure), ensure_ascii=False, indent=1) + "\n"
    write_atomically(out / NOTES / f"{failure.run_id}.json", text)


def clear_failure(out: Path, run_id: str) -> None:
    """The cell is finished after all."""
    (out / NOTES / f"{run_id}.json").unlink(missing_ok=True)


def state_of(out: Path, cell: Cell) -> tuple[State, RunRecord | None]:
    """What there is of a cell, and its record if it is done."""
    try:
        record = finished(out, cell.run_id)
    except UserError:  # damaged: the cell fails with a sentence that names the file
        record = None
    if record is not None:
        return "done", record
    if (out / NOTES / f"{cell.run_id}.json").is_file():
        return "failed", None
    partial = partial_folder(out, cell.run_id)
    if not partial.is_dir():
        return "new", None
    said = _json(partial / RECORD)
    stopped = (partial / CHECKPOINT).is_file() or said.get("error") == "interrupted"
    return ("failed" if said.get("status") == "failed" and not stopped else "unfinished"), None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class History:
    """Seconds that finished runs of a results folder took."""

    def __init__(self, out: Path) -> None:
        self._seconds: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for path in out.glob(f"*/{RECORD}"):
            record = _json(path)
            try:
                task, delta = record["spec"]["task"], record["delta"]["name"]
                seconds = float(record["environment"]["seconds"])
            except (KeyError, TypeError, ValueError):
                continue
            self.add(str(task), str(delta), seconds)

    def add(self, task: str, delta: str, seconds: float) -> None:
        """Count one more finished run."""
        self._seconds[task, delta].append(seconds)
        if delta != "none":
            self._seconds[(task,)].append(seconds)

    def seconds(self, cell: Cell) -> float | None:
        """Median time of runs of the same task and delta, else of the same task; None: unknown."""
        delta = "none" if cell.control == "zero-shot" else cell.delta
        keys: list[tuple[str, ...]] = [(cell.request.task, delta)]
        if delta != "none":
            keys.append((cell.request.task,))
        for key in keys:
            if self._seconds.get(key):
                return statistics.median(self._seconds[key])
        return None

    def remaining(self, cells: Iterable[Cell], slots: int) -> tuple[float, int]:
        """Seconds for these cells on so many processes, and how many cells are of unknown time."""
        known = [(self.seconds(cell), cell.nproc) for cell in cells]
        found = [(seconds, nproc) for seconds, nproc in known if seconds is not None]
        work = sum(seconds * nproc for seconds, nproc in found)
        spread = max(work / slots, max((seconds for seconds, _ in found), default=0.0))
        return spread, len(known) - len(found)


@dataclass(frozen=True)
class Standing:
    """A suite against a results folder; `todo` is in the order of work."""

    cells: Sequence[Cell]
    states: dict[str, State]
    records: dict[str, RunRecord]
    todo: Sequence[Cell]


def stand(out: Path, cells: Sequence[Cell], only_failed: bool = False) -> Standing:
    """Look at the results folder; `only_failed` leaves cells to do that failed before, and the
    controls these need."""
    states: dict[str, State] = {}
    records: dict[str, RunRecord] = {}
    for cell in cells:
        state, record = state_of(out, cell)
        states[cell.run_id] = state
        if record is not None:
            records[cell.run_id] = record
    todo = [cell for cell in cells if states[cell.run_id] != "done"]
    if only_failed:
        wanted = {cell.run_id for cell in todo if states[cell.run_id] == "failed"}
        wanted |= {cell.needs for cell in todo if cell.run_id in wanted and cell.needs}
        todo = [cell for cell in todo if cell.run_id in wanted]
    return Standing(cells, states, records, todo)
