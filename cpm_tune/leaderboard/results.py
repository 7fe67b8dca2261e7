"""Reads a results folder: every record below it, and one sentence per file left out."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Generic, TypeVar

from cpm_tune.common.folders import RECORD, is_complete
from cpm_tune.errors import UserError
from cpm_tune.metrics import get_metric
from cpm_tune.schema.record import AnyRecord, RunRecord, SystemRecord, read_any_record
from cpm_tune.schema.walk import check_results, iter_records

R = TypeVar("R", RunRecord, SystemRecord, AnyRecord)


@dataclass(frozen=True)
class StoredRecord(Generic[R]):
    """A finished run, or an outside system's scored predictions, with its folder."""

    record: R
    folder: Path


AnyStored = StoredRecord[RunRecord] | StoredRecord[SystemRecord]


@dataclass(frozen=True)
class Results:
    """The finished runs and systems of a results folder that have a test score. `repeats` are runs
    of `runs` in another folder, perhaps with another number of processes: their scores do not count
    twice."""

    runs: tuple[StoredRecord[RunRecord], ...]
    repeats: tuple[StoredRecord[RunRecord], ...]
    left_out: tuple[str, ...]
    systems: tuple[StoredRecord[SystemRecord], ...] = ()
    folders: tuple[Path, ...] = ()


def read_folder(
    folder: Path, *more: Path, read: Callable[[Path], AnyRecord] = read_any_record
) -> Results:
    """Read a results folder, and others that exist as well; UserError if there is none. `read`
    reads a record or raises UserError."""
    check_results(folder)
    with without_collection():
        return _read((folder, *more), read)


def read_run(folder: Path) -> Results:
    """One finished run, or a system's scored predictions; UserError if it is not one."""
    record = read_any_record(folder / RECORD)
    if isinstance(record, SystemRecord):
        return Results((), (), (), (StoredRecord(record, folder),))
    if reason := _unusable(record, folder):
        raise UserError(f"{folder}: no page: {reason}.")
    return Results((StoredRecord(record, folder),), (), ())


def _read(folders: Sequence[Path], read: Callable[[Path], AnyRecord]) -> Results:
    runs: dict[str, StoredRecord[RunRecord]] = {}
    systems: dict[str, StoredRecord[SystemRecord]] = {}
    repeats: list[StoredRecord[RunRecord]] = []
    left_out: list[str] = []
    found = (iter_records(each, left_out, finished=False, read=read) for each in folders)
    for place, record in chain.from_iterable(found):
        if isinstance(record, SystemRecord):
            if record.split != "test":
                left_out.append(f"{place.name}: scored on {record.split}, not on test")
            elif reason := _impossible(record):
                left_out.append(f"{place / RECORD}: {reason}; left out.")
            elif record.run_id in systems:
                left_out.append(
                    f"{place / RECORD}: the same predictions as in another folder; counted once."
                )
            else:
                systems[record.run_id] = StoredRecord(record, place)
        elif reason := _unusable(record, place):
            left_out.append(reason)
        elif record.run_id in runs:
            repeats.append(StoredRecord(record, place))
            left_out.append(f"{place / RECORD}: the same run as in another folder; counted once.")
        else:
            runs[record.run_id] = StoredRecord(record, place)
    left_out += chain.from_iterable(map(_foreign, folders))
    parts = tuple(runs.values()), tuple(repeats), tuple(left_out), tuple(systems.values())
    return Results(*parts, tuple(folders))


def _unusable(record: RunRecord, folder: Path) -> str:
    name = folder.name
    if record.status != "finished" or not is_complete(folder):
        error = f": {record.error}" if record.error else ""
        status = "unfinished" if record.status == "running" else record.status
        return f"{name}: {status}, not in the table{error}"
    if not record.labelled:
        return f"{name}: its test split has no answers, so no score"
    reason = _impossible(record)
    return f"{folder / RECORD}: {reason}; left out" if reason else ""


def _impossible(record: AnyRecord) -> str:
    """Which score of a record its metric cannot have; "" if all are possible."""
    for split, scores in record.scores.items():
        for name, score in scores.items():
            low, high = _bounds(name)
            room = 1e-6 * high if math.isfinite(high) else 0.0  # BLEU of equal texts is 100.0...04
            if not low - room <= score.value <= high + room:
                return f"{split} {name} is {score.value:g}, expected {low:g} to {high:g}"
    return ""


@cache
def _bounds(metric: str) -> tuple[float, float]:
    try:
        return get_metric(metric).bounds
    except UserError:  # a metric of another version
        return -math.inf, math.inf


def _foreign(folder: Path) -> Iterator[str]:
    """JSON files in the results folder itself."""
    for path in sorted(folder.glob("*.json")):
        if path.name == RECORD:
            yield f"{path}: the record of one run; give the folder above {folder}."
        else:
            yield f"{path}: not a run's {RECORD} in a folder of its own; skipped."


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Many live objects make every collection slow, and none of them is garbage.

    They are frozen, or the first collection afterwards would look at all of them at once; records
    have no cycles, so they are still freed when nothing refers to them.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.freeze()
            gc.enable()
