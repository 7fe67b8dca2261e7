"""The command `leaderboard`."""

from __future__ import annotations

import sys

from cpm_tune.commands.options.leaderboard import Leaderboard
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.export import export, write
from cpm_tune.leaderboard.formats import by_ending


def run(options: Leaderboard) -> int:
    """Print or write the tables of a results folder."""
    style = options.format or by_ending(options.out)
    if options.texts is not None and style != "html":
        raise UserError("--texts is for the page: add --format html, or --out FILE.html.")
    if options.files and (style != "html" or options.out is None):
        raise UserError("--files is for the page: add --out FILE.html.")
    text, notes = export(
        options.results,
        style,
        published=options.published,
        include=options.include,
        per_run=options.predictions,
        texts="sample" if options.texts is None else "all" if options.texts else "none",
        data=options.data,
        places=options.places,
        beside=options.out.with_suffix(".files") if options.out and options.files else None,
    )
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if options.out is None:
        print(text)
        return 0
    write(options.out, text)
    print(f"{options.out}: written ({style}, {options.out.stat().st_size:,} bytes)")
    return 0
