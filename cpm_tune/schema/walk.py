"""Walks a results folder: every record below it, and one sentence per file that is skipped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from cpm_tune.common.folders import RECORD, is_complete
from cpm_tune.common.program import program
from cpm_tune.errors import UserError
from cpm_tune.schema.record import AnyRecord, read_any_record


def iter_records(
    folder: Path,
    skipped: list[str],
    *,
    finished: bool = True,
    read: Callable[[Path], AnyRecord] = read_any_record,
) -> Iterator[tuple[Path, AnyRecord]]:
    """Yield (run's folder, record) for every readable record below `folder`, in order of the paths.

    With `finished`, only complete folders whose record says finished. What cannot be read is
    appended to `skipped`, one sentence per file or folder. `read` reads a record or raises
    UserError. Raises UserError if there is no folder.
    """
    check_results(folder)
    for path in map(Path, record_paths(str(folder), skipped)):
        if finished and not is_complete(path.parent):
            continue
        try:
            record = read(path)
        except UserError as error:
            skipped.append(str(error))
            continue
        if record.status == "finished" or not finished:
            yield path.parent, record


def check_results(folder: Path) -> None:
    """Raise UserError unless there is such a folder."""
    if folder.is_dir():
        return
    if folder.exists():
        raise UserError(f"{folder}: a file, expected a results folder.")
    raise UserError(f"{folder}: there is no such results folder; run `{program()} --task …` first.")


def record_paths(place: str, skipped: list[str]) -> Iterator[str]:
    """Yield the paths of records in order; a run's own folders are not searched. Half-written
    records and folders that cannot be read are appended to `skipped`."""
    try:
        with os.scandir(place) as entries:
            folders = sorted(e.name for e in entries if _to_search(e))
    except OSError as error:
        skipped.append(f"{place}: not readable ({error.strerror}).")
        return
    for name in folders:
        path = os.path.join(place, name, RECORD)  # noqa: PTH118 - ten thousand
        if os.path.lexists(path):  # a broken link is reported, too
            yield path
        elif os.path.exists(f"{path}.part"):  # noqa: PTH110
            skipped.append(f"{path}.part: a half-written record; skipped.")
        else:
            yield from record_paths(os.path.join(place, name), skipped)  # noqa: PTH118


def _to_search(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, not hidden, and not a link to a folder being searched (a loop)."""
    if entry.name.startswith(".") or not entry.is_dir():
        return False
    if not entry.is_symlink():
        return True
    target, here = Path(entry.path).resolve(), Path(entry.path).parent.resolve()
    return not here.is_relative_to(target)
