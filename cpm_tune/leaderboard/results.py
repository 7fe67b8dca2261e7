"""Reads a results folder: every record below it, and a sentence for every file left out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cpm_tune.errors import UserError
from cpm_tune.record import FILE, RunRecord, read_record

_UNFINISHED = (".partial", ".old")


@dataclass(frozen=True)
class Found:
    """One finished run with a test score, and its folder."""

    record: RunRecord
    folder: Path


@dataclass(frozen=True)
class Results:
    """What a results folder holds. `repeats` are runs of `runs` that are there again (in another
    folder, perhaps with another number of processes): their scores do not count twice."""

    runs: tuple[Found, ...]
    repeats: tuple[Found, ...]
    left_out: tuple[str, ...]


def read_folder(folder: Path) -> Results:
    """Read a results folder; UserError if there is none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such results folder; run `tune.py --task …` first.")
    runs: dict[str, Found] = {}
    repeats: list[Found] = []
    left_out: list[str] = []
    for path in _record_files(folder, left_out):
        try:
            record = read_record(path)
        except UserError as error:
            left_out.append(str(error))
            continue
        found = Found(record, path.parent)
        if reason := _unusable(found):
            left_out.append(reason)
        elif record.run_id in runs:
            repeats.append(found)
            left_out.append(f"{path}: the same run is there twice; one is counted.")
        else:
            runs[record.run_id] = found
    return Results(tuple(runs.values()), tuple(repeats), tuple(left_out))


def _unusable(found: Found) -> str:
    record, name = found.record, found.folder.name
    if record.status != "finished" or name.endswith(_UNFINISHED):
        said = f": {record.error}" if record.error else ""
        return f"{name}: {record.status}, not in the table{said}"
    if not record.labelled:
        return f"{name}: its test split has no answers, so no score"
    return ""


def _record_files(folder: Path, left_out: list[str]) -> Iterator[Path]:
    """Paths of records in order; a run's own folders are not searched.

    JSON files that lie in the results folder itself, and halves of records, are named.
    """

    def failed(error: OSError) -> None:
        left_out.append(f"{error.filename}: not readable ({error.strerror}).")

    for place, folders, files in os.walk(folder, onerror=failed):
        here = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if FILE in files:
            folders.clear()
            yield here / FILE
        elif f"{FILE}.part" in files:
            folders.clear()
            left_out.append(f"{here / FILE}.part: a half-written record; skipped.")
        elif here == folder:
            for name in sorted(files):
                if name.endswith(".json"):
                    left_out.append(
                        f"{here / name}: not a run's {FILE} in a folder of its own; skipped."
                    )
