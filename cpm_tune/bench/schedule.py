"""Carries out the cells to do: chooses the next one for a free slot, and reports every ending."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cpm_tune.bench.cells import Cell, Report
from cpm_tune.bench.processes import Executor
from cpm_tune.bench.state import Failure, clear_failure, state_of, write_failure
from cpm_tune.schema.record import RunRecord

_TICK = 0.5  # seconds between two looks at the running cells


@dataclass(frozen=True)
class Ending:
    """A cell that needs no more work: its record, or why there is none."""

    cell: Cell
    seconds: float
    record: RunRecord | None = None
    failure: Failure | None = None


class Watcher(Protocol):
    """What is told to the user while cells run."""

    def started(self, slot: int, cell: Cell) -> None:
        """A cell begins."""

    def ended(self, slot: int | None, ending: Ending) -> None:
        """A cell is done or has failed; `slot` is None if it was never begun."""

    def again(self, slot: int, cell: Cell, why: str) -> None:
        """A cell was lost with its process and will be run again."""

    def tick(self) -> None:
        """Called twice a second."""


class Queue:
    """The cells that wait. A slot is given a neighbour of its last cell where there is one."""

    def __init__(self, cells: Sequence[Cell], slots: int) -> None:
        self._waiting = list(cells)
        self._last: list[tuple[str, str] | None] = [None] * slots
        self._running: dict[int, Cell] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting or self._running)

    def take(self, slot: int, room: int = 1) -> Cell | None:
        """The next cell for a slot, of no more than `room` processes; larger ones first. None if
        there is none whose control is there by now."""
        pending = {c.run_id for c in (*self._waiting, *self._running.values())}
        ready = [c for c in self._waiting if c.needs not in pending and c.nproc <= room]
        if not ready:
            return None
        others = [group for i, group in enumerate(self._last) if i != slot and i in self._running]

        def distance(cell: Cell) -> int:
            last = self._last[slot]
            if last == cell.group:
                return 0
            shares = last is None or last[0] == cell.group[0]
            return (1 if shares else 3) + (cell.group in others)

        chosen = min(ready, key=lambda cell: (-cell.nproc, distance(cell)))  # the first nearest
        self._waiting.remove(chosen)
        self._running[slot], self._last[slot] = chosen, chosen.group
        return chosen

    def end(self, slot: int, *, again: bool = False) -> Cell:
        """The slot is free; `again` puts its cell back to be the next."""
        cell = self._running.pop(slot)
        if again:
            self._waiting.insert(0, cell)
        return cell

    def drop_dependents(self, run_id: str) -> list[Cell]:
        """Take out the cells that need this control."""
        dropped = [cell for cell in self._waiting if cell.needs == run_id]
        self._waiting = [cell for cell in self._waiting if cell.needs != run_id]
        return dropped


def run_cells(
    cells: Sequence[Cell], executor: Executor, out: Path, watcher: Watcher
) -> list[Ending]:
    """Run all cells and return how each ended. Failures are noted in the results folder; a cell
    whose process is lost is run again as often as the executor allows. None may have more processes
    than the executor has slots.

    The caller stops the executor, also when this is interrupted.
    """
    queue = Queue(cells, executor.slots)
    free = set(range(executor.slots))
    taken: dict[int, Sequence[int]] = {}  # by the first slot of a cell
    lost: dict[str, int] = {}
    endings: list[Ending] = []

    def end(slot: int | None, ending: Ending) -> None:
        endings.append(ending)
        watcher.ended(slot, ending)
        if ending.failure is not None:
            for cell in queue.drop_dependents(ending.cell.run_id):
                why = f"not run, its zero-shot control failed: {ending.failure.error}"
                end(None, _failed(out, cell, Report(cell.run_id, "failed", error=why)))

    while queue:
        for slot in sorted(free):
            if slot in free and (cell := queue.take(slot, len(free))) is not None:
                taken[slot] = [slot, *sorted(free - {slot})[: cell.nproc - 1]]
                free.difference_update(taken[slot])
                watcher.started(slot, cell)
                executor.start(taken[slot], cell)
        for slot, report in executor.wait(_TICK).items():
            free.update(taken.pop(slot))
            lost[report.run_id] = lost.get(report.run_id, 0) + (report.status == "lost")
            again = report.status == "lost" and lost[report.run_id] <= executor.retries
            cell = queue.end(slot, again=again)
            if again:
                watcher.again(slot, cell, report.error)
            else:
                end(slot, _ending(out, cell, report))
        watcher.tick()
    return endings


def _ending(out: Path, cell: Cell, report: Report) -> Ending:
    if report.status != "finished":
        return _failed(out, cell, report)
    state, record = state_of(out, cell)
    if state != "done" or record is None:
        said = f"finished, but {out / cell.run_id} is not there: is --out shared by all machines?"
        return _failed(out, cell, Report(cell.run_id, "failed", report.seconds, said))
    clear_failure(out, cell.run_id)
    return Ending(cell, report.seconds, record=record)


def _failed(out: Path, cell: Cell, report: Report) -> Ending:
    failure = Failure(cell.run_id, cell.name, report.error, report.detail)
    write_failure(out, failure)
    return Ending(cell, report.seconds, failure=failure)
