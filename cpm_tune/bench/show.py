"""What `bench` prints: the plan, a live table on a terminal or plain lines, the end."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpm_tune.bench.cells import Cell
from cpm_tune.bench.schedule import Ending
from cpm_tune.bench.state import History, Standing
from cpm_tune.common.folders import LOG, partial_folder
from cpm_tune.schema.record import RunRecord

_TAIL = 4096  # bytes of a log that hold its last entries


def plan_text(standing: Standing, history: History, out: Path, where: str, slots: int) -> str:
    """The plan in a few lines: cells, done, to do, estimated time."""
    cells, states = standing.cells, Counter(standing.states.values())
    kinds = Counter(cell.control or "tuning" for cell in cells)
    axes: dict[str, Sequence[object]] = {
        "tasks": list(dict.fromkeys(cell.request.task for cell in cells)),
        "deltas": list(dict.fromkeys(c.delta for c in cells if c.control != "zero-shot")),
        "backbones": list(dict.fromkeys(cell.backbone for cell in cells)),
        "seeds": sorted({cell.seed for cell in cells if cell.control != "zero-shot"}),
    }
    if any(cell.nproc > 1 for cell in cells):
        axes["processes"] = sorted({cell.nproc for cell in cells})
    lines = [f"{axis:10} {', '.join(map(str, values))}" for axis, values in axes.items()]
    said = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
    lines.append(f"cells      {len(cells)}: {said}")
    lines.append(f"done       {states['done']}")
    before = [f"{states[s]} {s} before" for s in ("failed",) if states[s]]
    before += [f"{states['unfinished']} begun before"] if states["unfinished"] else []
    note = f"  ({', '.join(before)})" if before else ""
    lines.append(f"to do      {len(standing.todo)}{note}")
    if standing.todo:
        seconds, unknown = history.remaining(standing.todo, slots)
        guess = f"about {duration(seconds)}" if seconds else "unknown, no earlier run to go by"
        if seconds and unknown:
            guess += f" and {unknown} cells of unknown time"
        lines.append(f"estimate   {guess}, {where}")
    lines.append(f"results    {out}")
    return "\n".join(lines)


def cell_list(standing: Standing, history: History) -> str:
    """A line for every cell: state, name, estimated time, run id."""
    lines = []
    for cell in standing.cells:
        state, seconds = standing.states[cell.run_id], history.seconds(cell)
        time_ = "" if state == "done" or seconds is None else duration(seconds)
        name = cell.name + (f" x{cell.nproc}" if cell.nproc > 1 else "")
        lines.append(f"{state:11}{name:48} {time_:>9}  {cell.run_id}")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds in the unit that one would say."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def score_text(record: RunRecord) -> str:
    """The ranking metric of a finished run."""
    if not record.labelled:
        dev = record.scores["dev"][record.ranks_by]
        return f"dev {record.ranks_by} {dev.value:.4f}, test without answers"
    test = record.test
    return f"{record.ranks_by} {test.value:.4f} [{test.low:.4f}, {test.high:.4f}]"


def end_text(endings: Sequence[Ending], standing: Standing, out: Path, seconds: float) -> str:
    """What was done, and every failure with its sentence."""
    failures = [ending.failure for ending in endings if ending.failure is not None]
    done = len(endings) - len(failures)
    lines = [f"failed     {failure.name}: {failure.error}" for failure in failures]
    before = sum(state == "done" for state in standing.states.values())
    lines.append(
        f"finished   {done + before} of {len(standing.cells)} cells, {done} of them now, in "
        f"{duration(seconds)}" + (f"; {len(failures)} failed" if failures else "")
    )
    if failures:
        lines.append("again      the same command tries them again; --only-failed nothing else")
    lines.append(f"next       tune.py leaderboard {out}")
    return "\n".join(lines)


class Lines:
    """A plain line for every cell that ends."""

    def __init__(self, total: int) -> None:
        self._total, self._n = total, 0

    def started(self, slot: int, cell: Cell) -> None:
        return None

    def ended(self, slot: int | None, ending: Ending) -> None:
        self._n += 1
        print(f"[{self._n}/{self._total}] {_ending_text(ending)}", flush=True)

    def again(self, slot: int, cell: Cell, why: str) -> None:
        print(f"again      {cell.name}: {why}", flush=True)

    def tick(self) -> None:
        return None

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error: object) -> None:
        return None


def _ending_text(ending: Ending) -> str:
    if ending.record is not None:
        return f"{ending.cell.name}: {score_text(ending.record)}, {duration(ending.seconds)}"
    assert ending.failure is not None
    return f"{ending.cell.name}: failed: {ending.failure.error}"


class Live:
    """A table of the running cells, redrawn twice a second, under the lines of those that ended."""

    def __init__(self, cells: Sequence[Cell], history: History, out: Path, slots: int) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._left = {cell.run_id: cell for cell in cells}
        self._total, self._failed = len(cells), 0
        self._settings = any(cell.about for cell in cells)
        self._history, self._out, self._slots = history, out, slots
        self._running: dict[int, tuple[Cell, float]] = {}
        self._started = time.monotonic()
        self._console = Console(stderr=True)
        self._live = RichLive(
            self._table(), console=self._console, auto_refresh=False, redirect_stdout=False
        )

    def __enter__(self) -> Live:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.update(self._table(), refresh=True)
        self._live.stop()

    def started(self, slot: int, cell: Cell) -> None:
        self._running[slot] = (cell, time.monotonic())
        self.tick()

    def ended(self, slot: int | None, ending: Ending) -> None:
        if slot is not None:
            self._running.pop(slot, None)
        self._left.pop(ending.cell.run_id, None)
        if ending.record is not None:
            cell = ending.cell
            delta = "none" if cell.control == "zero-shot" else cell.delta
            self._history.add(cell.request.task, delta, ending.seconds)
        self._failed += ending.failure is not None
        style = "red" if ending.failure is not None else None
        self._live.console.print(_ending_text(ending), style=style, markup=False, highlight=False)
        self.tick()

    def again(self, slot: int, cell: Cell, why: str) -> None:
        self._running.pop(slot, None)
        self._live.console.print(f"again: {cell.name}: {why}", markup=False, highlight=False)

    def tick(self) -> None:
        self._live.update(self._table(), refresh=True)

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        ended = self._total - len(self._left)
        seconds, unknown = self._history.remaining(self._left.values(), self._slots)
        left = f", about {duration(seconds)} left" if seconds and not unknown else ""
        table = Table(
            title=f"{ended} of {self._total} cells, {self._failed} failed, "
            f"{duration(time.monotonic() - self._started)}{left}",
            title_justify="left",
            box=None,
            padding=(0, 2, 0, 0),
        )
        heads = ["#", "task", "delta", "backbone", "seed", "settings", "step", "dev", "time"]
        if not self._settings:
            heads.remove("settings")
        for column in heads:
            table.add_column(column, overflow="fold")
        for slot, (cell, started) in sorted(self._running.items()):
            step, dev = progress(self._out, cell)
            delta = "zero-shot" if cell.control == "zero-shot" else cell.delta
            group = f" x{cell.nproc}" if cell.nproc > 1 else ""
            random = "random " if cell.control == "random-backbone" else ""
            spent = duration(time.monotonic() - started)
            row = [f"{slot + 1}{group}", cell.request.task, delta, random + cell.backbone]
            row += ["" if cell.control == "zero-shot" else str(cell.seed)]
            row += [cell.about] * self._settings + [step, dev, spent]
            table.add_row(*map(Text, row))
        return table


def progress(out: Path, cell: Cell) -> tuple[str, str]:
    """The last step and the last dev score in the log of a running cell, as texts."""
    step = dev = ""
    try:
        with (partial_folder(out, cell.run_id) / LOG).open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return step, dev
    for line in lines:
        try:
            entry = json.loads(line)
            step = str(entry["step"])
            dev = f"{entry['dev']:.4f}" if "dev" in entry else dev
        except (ValueError, KeyError, TypeError):
            continue  # cut off in its beginning or still being written
    return step, dev


def watcher(
    cells: Sequence[Cell], history: History, out: Path, slots: int, quiet: bool
) -> Live | Lines:
    """The live table on a terminal, plain lines anywhere else."""
    if sys.stderr.isatty() and not quiet:
        return Live(cells, history, out, slots)
    return Lines(len(cells))
