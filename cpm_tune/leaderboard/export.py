"""From a results folder to the text of one of the formats."""

from __future__ import annotations

from pathlib import Path

from cpm_tune.common.writing import write_atomically
from cpm_tune.errors import UserError
from cpm_tune.leaderboard import tables
from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.board import Board
from cpm_tune.leaderboard.html import as_html, told
from cpm_tune.leaderboard.results import Results, read_folder
from cpm_tune.leaderboard.table import as_text, make_tables
from cpm_tune.leaderboard.tables import quoted_text
from cpm_tune.leaderboard.tables_latex import as_latex
from cpm_tune.leaderboard.texts import Which, read_texts

ENDINGS = {
    ".txt": "text",
    ".md": "md",
    ".csv": "csv",
    ".tex": "latex",
    ".json": "json",
    ".html": "html",
    ".htm": "html",
}


def by_ending(path: Path | None) -> str:
    """The format that a file's ending names; text where there is none. UserError for another."""
    if path is None or not path.suffix:
        return "text"
    found = ENDINGS.get(path.suffix.lower())
    if found is None:
        known = ", ".join(ENDINGS)
        raise UserError(
            f"--out {path}: no format has the ending '{path.suffix}' ({known}); give --format."
        )
    return found


def export(
    folder: Path,
    style: str,
    published: bool = False,
    include: tuple[Path, ...] = (),
    per_run: int = 20,
    texts: Which = "sample",
    data: Path | None = None,
) -> tuple[str, list[str]]:
    """Return the leaderboard of a folder in a format, and a sentence for each file left out.

    `texts` and `data` are of the page alone; see `read_texts`.
    """

    results = read_folder(folder)
    board = make_board(results, include, published)
    if style == "text":
        return _text(folder, results, board), board.left_out
    if style == "html":
        found = read_texts(*told(board, results, per_run), texts, data, include)
        page = as_html(board, results, per_run, found)
        return page, [*board.left_out, *found.notes]
    if style == "latex":
        return as_latex(board), board.left_out
    if style == "json":
        return tables.as_json(board), board.left_out
    if style == "md":
        return tables.as_markdown(board), board.left_out
    return tables.as_csv(board, wide=style == "csv-wide").rstrip("\n"), board.left_out


def _text(folder: Path, results: Results, board: Board) -> str:

    systems = [system.record for system in results.systems]
    made = make_tables([run.record for run in results.runs], systems)
    said = [as_text(table) for table in made] or [f"{folder}: no finished runs."]
    return "\n\n".join([*said, *([quoted_text(board)] if board.quoted else [])])


def write(path: Path, text: str) -> None:
    """Write the file whole or not at all; UserError if it cannot be written."""
    try:
        write_atomically(path, text.rstrip("\n") + "\n")
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written ({error.strerror}).") from error
