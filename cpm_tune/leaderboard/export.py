"""From a results folder to the text of one of the formats."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cpm_tune.common.door import load
from cpm_tune.common.folders import new_folder, predictions_file
from cpm_tune.common.paths import file_sha256
from cpm_tune.common.writing import write_atomically
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.examples import BESIDE, IN_PAGE
from cpm_tune.leaderboard.formats import FORMATS
from cpm_tune.leaderboard.html import as_script, page_of
from cpm_tune.leaderboard.mean_places import add_mean_places
from cpm_tune.leaderboard.page_data import Source, part_name, run_part_of, source_of
from cpm_tune.leaderboard.results import AnyStored, read_folder
from cpm_tune.leaderboard.texts import Which
from cpm_tune.leaderboard.ties import add_places, folders_of

_PART = re.compile(r"(run|set)-[0-9a-f]+\.(js|jsonl)")
MOST_COPIED = 64 * 2**20  # bytes of a file of predictions


def export(
    folder: Path,
    style: str,
    published: bool = False,
    include: tuple[Path, ...] = (),
    per_run: int | None = None,
    texts: Which = "sample",
    data: Path | None = None,
    places: bool = False,
    beside: Path | None = None,
) -> tuple[str, list[str]]:
    """Return the leaderboard of a folder in a format, and one sentence per file left out.

    `places` tests all pairs of rows. The others are for the page alone: for `per_run`, `texts` and
    `data` see `source_of`; `beside` is a folder next to the page that gets the records and examples
    of all runs.
    """
    results = read_folder(folder)
    board = make_board(results, include, published)
    if places:
        board.left_out += add_places(board, results)
        board.left_out += add_mean_places(board, folders_of(results))
    if style == "html":
        bounds, name = (IN_PAGE, "") if beside is None else (BESIDE, quote(beside.name))
        source = source_of(board, results, per_run, texts, data, include, bounds, name)
        if beside is not None:
            write_parts(source, beside)
        page = page_of(source)
        return page, [*board.left_out, *source.texts.notes]
    text: str = load(FORMATS[style].renderer)(board)
    return text or f"{folder}: no finished runs.", board.left_out


def write_parts(source: Source, folder: Path) -> None:
    """Write the parts of a page that are read one by one, and copies of the predictions.

    An earlier folder of such parts is replaced. Raises UserError if the folder has other files.
    """
    if folder.exists() and any(not _PART.fullmatch(name) for name in _names(folder)):
        raise UserError(f"--files: {folder} has other files; remove it, or give another --out.")
    with new_folder(folder, "--files: ", overwrite=True) as part:
        for run in source.runs:
            name, made = part_name(run.record.run_id), run_part_of(source, run)
            if _copied(run, part / f"{name}.jsonl"):
                made["file"] = f"{name}.jsonl"
            _write_script(part, name, made)
        for number, name in enumerate(source.texts.names):
            _write_script(part, name, source.texts.part(number))


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else [folder.name]


def _write_script(folder: Path, name: str, value: Any) -> None:
    (folder / f"{name}.js").write_text(as_script(name, value), encoding="utf-8")


def _copied(run: AnyStored, to: Path) -> bool:
    """Copy a run's test predictions, if they are the record's and not too large."""
    name = predictions_file("test")
    path = run.folder / name
    try:
        if path.stat().st_size > MOST_COPIED or file_sha256(path) != run.record.predictions[name]:
            return False
        shutil.copyfile(path, to)
    except (OSError, KeyError):
        return False
    return True


def write(path: Path, text: str) -> None:
    """Write the file whole or not at all; UserError if it cannot be written."""
    try:
        write_atomically(path, text.rstrip("\n") + "\n")
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written ({error.strerror}).") from error
