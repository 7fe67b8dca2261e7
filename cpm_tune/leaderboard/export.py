"""From a results folder to the text of one of the formats."""

from __future__ import annotations

from pathlib import Path

from cpm_tune.common.door import load
from cpm_tune.common.writing import write_atomically
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.examples import embedded_runs
from cpm_tune.leaderboard.formats import FORMATS
from cpm_tune.leaderboard.html import as_html
from cpm_tune.leaderboard.mean_places import add_mean_places
from cpm_tune.leaderboard.results import read_folder
from cpm_tune.leaderboard.texts import Which, read_texts
from cpm_tune.leaderboard.ties import add_places, folders_of


def export(
    folder: Path,
    style: str,
    published: bool = False,
    include: tuple[Path, ...] = (),
    per_run: int = 20,
    texts: Which = "sample",
    data: Path | None = None,
    places: bool = False,
) -> tuple[str, list[str]]:
    """Return the leaderboard of a folder in a format, and one sentence per file left out.

    `places` tests all pairs of rows. `per_run`, `texts` and `data` are for the page alone; see
    `as_html` and `read_texts`.
    """
    results = read_folder(folder)
    board = make_board(results, include, published)
    if places:
        board.left_out += add_places(board, results)
        board.left_out += add_mean_places(board, folders_of(results))
    if style == "html":
        examples = read_texts(*embedded_runs(results, per_run), texts, data, include)
        page = as_html(board, results, per_run, examples)
        return page, [*board.left_out, *examples.notes]
    text: str = load(FORMATS[style].renderer)(board)
    return text or f"{folder}: no finished runs.", board.left_out


def write(path: Path, text: str) -> None:
    """Write the file whole or not at all; UserError if it cannot be written."""
    try:
        write_atomically(path, text.rstrip("\n") + "\n")
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written ({error.strerror}).") from error
