"""Reads a results folder: every record below it, and a sentence for every file left out."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cpm_tune.common.folders import RECORD, is_complete
from cpm_tune.errors import UserError
from cpm_tune.schema.record import RunRecord, SystemRecord, read_any_record
from cpm_tune.schema.walk import record_files


@dataclass(frozen=True)
class Found:
    """One finished run with a test score, and its folder."""

    record: RunRecord
    folder: Path


@dataclass(frozen=True)
class System:
    """The scored predictions of a system outside this package, on a test split."""

    record: SystemRecord
    folder: Path


@dataclass(frozen=True)
class Results:
    """What a results folder holds. `repeats` are runs of `runs` that are there again (in another
    folder, perhaps with another number of processes): their scores do not count twice."""

    runs: tuple[Found, ...]
    repeats: tuple[Found, ...]
    left_out: tuple[str, ...]
    systems: tuple[System, ...] = ()


def read_folder(folder: Path) -> Results:
    """Read a results folder; UserError if there is none."""
    if not folder.is_dir():
        said = "a file, expected a results folder" if folder.exists() else ""
        said = said or "there is no such results folder; run `tune.py --task …` first"
        raise UserError(f"{folder}: {said}.")
    with without_collection():
        return _read(folder)


def _read(folder: Path) -> Results:
    runs: dict[str, Found] = {}
    systems: dict[str, System] = {}
    repeats: list[Found] = []
    left_out: list[str] = []
    for path in record_files(folder, left_out):
        try:
            record = read_any_record(path)
        except UserError as error:
            left_out.append(str(error))
            continue
        if isinstance(record, SystemRecord):
            if record.split != "test":
                left_out.append(f"{path.parent.name}: scored on {record.split}, not on test")
            elif record.run_id in systems:
                left_out.append(f"{path}: the same predictions are there twice; one is counted.")
            else:
                systems[record.run_id] = System(record, path.parent)
            continue
        found = Found(record, path.parent)
        if reason := _unusable(found):
            left_out.append(reason)
        elif record.run_id in runs:
            repeats.append(found)
            left_out.append(f"{path}: the same run is there twice; one is counted.")
        else:
            runs[record.run_id] = found
    left_out += _foreign(folder)
    return Results(tuple(runs.values()), tuple(repeats), tuple(left_out), tuple(systems.values()))


def _unusable(found: Found) -> str:
    record, name = found.record, found.folder.name
    if record.status != "finished" or not is_complete(found.folder):
        said = f": {record.error}" if record.error else ""
        status = "unfinished" if record.status == "running" else record.status
        return f"{name}: {status}, not in the table{said}"
    if not record.labelled:
        return f"{name}: its test split has no answers, so no score"
    return ""


def _foreign(folder: Path) -> Iterator[str]:
    """JSON files that lie in the results folder itself."""
    for path in sorted(folder.glob("*.json")):
        if path.name == RECORD:
            yield f"{path}: the record of one run; give the folder above {folder}."
        else:
            yield f"{path}: not a run's {RECORD} in a folder of its own; skipped."


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Many live objects make every collection slow, and none of them is garbage.

    They are frozen, or the first collection afterwards would look at all of them at once; records
    hold no cycles, so they still go when nothing refers to them.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.freeze()
            gc.enable()
