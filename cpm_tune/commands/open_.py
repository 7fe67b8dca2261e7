"""The command `open`: the page of one run, or of a results folder, in the browser."""

from __future__ import annotations

import hashlib
import os
import sys
import webbrowser
from pathlib import Path

from cpm_tune.commands.options.records import Open
from cpm_tune.common.folders import PARTIAL, RECORD
from cpm_tune.common.paths import cache_dir
from cpm_tune.common.program import program
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.export import write
from cpm_tune.leaderboard.html import page_of
from cpm_tune.leaderboard.page_data import source_of
from cpm_tune.leaderboard.results import Results, read_folder, read_run


def run(options: Open) -> int:
    """Write the page, open it where there is a browser, print its path."""
    place = options.run
    partial = place if place.name.endswith(PARTIAL) else place.with_name(place.name + PARTIAL)
    if partial.is_dir() and not (partial != place and place.is_dir()):
        raise UserError(
            f"{place}: not finished yet; `{program()} runs tail {place}` prints its log."
        )
    results = read_run(place) if (place / RECORD).is_file() else _results(place)
    board = make_board(results, options.include)
    path = options.out or cache_dir("pages") / f"{_name(place)}.html"
    write(path, page_of(source_of(board, results, include=options.include)))
    if options.browser and _has_browser():
        webbrowser.open(path.absolute().as_uri())
    print(path)
    return 0


def _results(place: Path) -> Results:
    """The runs of a results folder; UserError if it has none that is finished."""
    results = read_folder(place)
    if not (results.runs or results.systems):
        raise UserError(f"{place}: neither a finished run nor a folder that has one.")
    return results


def _name(place: Path) -> str:
    """A name for the page: the folder's, and what tells it from others of the same name."""
    absolute = str(place.absolute())
    return f"{place.absolute().name[:80]}.{hashlib.sha256(os.fsencode(absolute)).hexdigest()[:8]}"


def _has_browser() -> bool:
    """Whether a window can be opened; a browser inside the terminal would take it over."""
    windows = sys.platform in ("win32", "darwin")
    return windows or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
