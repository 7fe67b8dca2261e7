"""Reads a results folder: every record below it, and a sentence for every file left out."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cpm_tune.errors import UserError
from cpm_tune.schema.record import FILE, RunRecord, SystemRecord, read_any_record

_UNFINISHED = (".partial", ".old")


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
    if record.status != "finished" or name.endswith(_UNFINISHED):
        said = f": {record.error}" if record.error else ""
        status = "unfinished" if record.status == "running" else record.status
        return f"{name}: {status}, not in the table{said}"
    if not record.labelled:
        return f"{name}: its test split has no answers, so no score"
    return ""


def record_files(folder: Path, left_out: list[str]) -> Iterator[Path]:
    """Paths of records in order; a run's own folders are not searched. Halves of records and
    folders that cannot be read are named in `left_out`."""
    yield from map(Path, _below(str(folder), left_out))


def _foreign(folder: Path) -> Iterator[str]:
    """JSON files that lie in the results folder itself."""
    for path in sorted(folder.glob("*.json")):
        if path.name == FILE:
            yield f"{path}: the record of one run; give the folder above {folder}."
        else:
            yield f"{path}: not a run's {FILE} in a folder of its own; skipped."


def _below(place: str, left_out: list[str]) -> Iterator[str]:
    try:
        with os.scandir(place) as entries:
            folders = sorted(e.name for e in entries if _to_search(e))
    except OSError as error:
        left_out.append(f"{place}: not readable ({error.strerror}).")
        return
    for name in folders:
        path = os.path.join(place, name, FILE)  # noqa: PTH118 - ten thousand
        if os.path.lexists(path):  # a link to nothing is named, too
            yield path
        elif os.path.exists(f"{path}.part"):  # noqa: PTH110
            left_out.append(f"{path}.part: a half-written record; skipped.")
        else:
            yield from _below(os.path.join(place, name), left_out)  # noqa: PTH118


def _to_search(entry: os.DirEntry[str]) -> bool:
    """A folder, but no hidden one and no link to a folder that is being searched: a circle."""
    if entry.name.startswith(".") or not entry.is_dir():
        return False
    if not entry.is_symlink():
        return True
    target, here = Path(entry.path).resolve(), Path(entry.path).parent.resolve()
    return not here.is_relative_to(target)


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
