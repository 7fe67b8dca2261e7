"""The formats of the leaderboard: one entry each, with what it is called and what renders it.

To add a format, write a function from a Board to a text and give it an entry here: the command's
`--format` and the endings of `--out` follow. Renderers are imported when they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cpm_tune.errors import UserError


class Format(NamedTuple):
    """`renderer` is "module:function" of a function from a Board to a text; the page alone embeds
    more than a Board, see `export`. `endings` are those of files that are written in it."""

    renderer: str
    endings: tuple[str, ...] = ()


_HERE = "cpm_tune.leaderboard"
FORMATS: Mapping[str, Format] = {
    "text": Format(f"{_HERE}.tables_text:as_text", (".txt",)),
    "md": Format(f"{_HERE}.tables_md:as_markdown", (".md",)),
    "csv": Format(f"{_HERE}.tables_csv:as_csv", (".csv",)),
    "csv-wide": Format(f"{_HERE}.tables_csv:as_csv_wide"),
    "latex": Format(f"{_HERE}.tables_latex:as_latex", (".tex",)),
    "json": Format(f"{_HERE}.board:as_json", (".json",)),
    "html": Format(f"{_HERE}.html:as_html", (".html", ".htm")),
}


def by_ending(path: Path | None) -> str:
    """The format of a file's ending; text if it has none. UserError for an unknown ending."""
    if path is None or not path.suffix:
        return "text"
    endings = {ending: name for name, format_ in FORMATS.items() for ending in format_.endings}
    if path.suffix.lower() not in endings:
        raise UserError(
            f"--out {path}: no format has the ending '{path.suffix}' ({', '.join(endings)}); give "
            "--format."
        )
    return endings[path.suffix.lower()]
