"""The parts of the command `runs`: what is in a results folder, and removing it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from cpm_tune.commands.options.records import RunsDu, RunsList, RunsRemove, RunsShow, RunsTail
from cpm_tune.common.folders import LOG, OLD, PARTIAL, RECORD, remove, run_lock
from cpm_tune.common.sizes import counted
from cpm_tune.common.texts import table
from cpm_tune.errors import UserError, readable
from cpm_tune.schema.record import AnyRecord, RunRecord, no_run, read_any_record
from cpm_tune.schema.spec import flattened
from cpm_tune.schema.walk import iter_records

_POLL = 1.0  # seconds between two looks at a log that is followed


def list_(options: RunsList) -> int:
    """Print a line per run, finished or not."""
    skipped: list[str] = []
    rows = []
    for folder, record in iter_records(options.results, skipped, finished=False):
        name, state = str(folder.relative_to(options.results)), _state(folder, record)
        rows.append((name, record.name, state, str(record.spec.seed), _score(record)))
    print(table(("run", "name", "state", "seed", "score"), rows) if rows else "no runs.")
    for text in skipped:
        print(f"skipped  {readable(text)}")
    return 0


def show(options: RunsShow) -> int:
    """Print a record: its scores and every setting."""
    record = read_any_record(_record(options.run))
    print(f"run        {options.run}  ({_state(options.run, record)})")
    print(f"name       {record.name}")
    for split, scores in record.scores.items():
        for name, score in scores.items():
            interval = f"[{score.low:.4f}, {score.high:.4f}]"
            print(f"{split:10} {name} {score.value:.4f}  {interval}  n={score.n}")
    for text in record.warnings:
        print(f"warning    {text}")
    for key, value in flattened(record.spec).items():
        print(f"  {key} = {value}")
    return 0


def tail(options: RunsTail) -> int:
    """Print the last lines of a run's log, and with --follow those to come."""
    folder = options.run
    partial = folder.with_name(folder.name + PARTIAL)
    folder = partial if not folder.is_dir() and partial.is_dir() else folder
    path = folder / LOG
    if not path.is_file():
        raise UserError(f"{path}: there is no log; name the folder of a run that has trained.")
    lines = path.read_text("utf-8", errors="replace").splitlines()
    print("\n".join(lines[-options.lines :] if options.lines else []), flush=True)
    if options.follow:
        for line in _to_come(path, len(lines)):
            print(line, flush=True)
    return 0


def _to_come(path: Path, seen: int) -> Iterator[str]:
    """Lines that are added to a log, until its folder gets its final name."""
    while path.is_file():
        lines = path.read_text("utf-8", errors="replace").splitlines()
        yield from lines[seen:]
        seen = len(lines)
        if not path.parent.name.endswith(PARTIAL):
            return
        time.sleep(_POLL)


def du(options: RunsDu) -> int:
    """Print the bytes of each run, the largest first, and the sum."""
    skipped: list[str] = []
    folders = [place for place, _ in iter_records(options.results, skipped, finished=False)]
    sizes = sorted(((_bytes(place), str(place)) for place in folders), reverse=True)
    for size, place in sizes:
        print(f"{size:>15,}  {place}")
    print(f"{sum(size for size, _ in sizes):>15,}  {counted(len(sizes), 'run')}")
    return 0


def remove_(options: RunsRemove) -> int:
    """Remove runs, if --yes is given; UserError, before anything is removed, for what is no run or
    is being worked on."""
    for run in options.runs:
        if run.is_symlink():
            raise UserError(f"{run}: a link, expected a run's folder; remove the link yourself.")
        read_any_record(_record(run))
    if not options.yes:
        total = 0
        for run in options.runs:
            total += _bytes(run)
            print(f"would remove  {run}  {_bytes(run):,} bytes")
        print(f"nothing was removed; add --yes to remove {total:,} bytes.")
        return 0
    for run in options.runs:
        name = run.resolve().name.removesuffix(PARTIAL).removesuffix(OLD)
        with run_lock(run.resolve().parent, name, wait=False, busy=f"{run}: cannot be removed"):
            remove(run)
        print(f"removed    {run}")
    return 0


def _record(run: Path) -> Path:
    path = run / RECORD
    if not path.is_file():
        raise no_run(run)
    return path


def _state(folder: Path, record: AnyRecord) -> str:
    """finished, failed or unfinished."""
    if folder.name.endswith((PARTIAL, OLD)) and record.status != "failed":
        return "unfinished"
    return record.status


def _score(record: AnyRecord) -> str:
    if isinstance(record, RunRecord) and (record.status != "finished" or not record.labelled):
        return "-"
    return f"{record.ranks_by} {record.test.value:.4f}"


def _bytes(folder: Path) -> int:
    """The size of all files below a folder; links are not followed."""
    return sum(
        (Path(place) / name).lstat().st_size
        for place, _, names in os.walk(folder)
        for name in names
    )
