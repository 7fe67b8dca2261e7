"""The command `leaderboard`, and its subcommands by name."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cpm_tune.commands.arguments import make_parser
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.formats import FORMATS, by_ending

# Each subcommand's function (argv, prog) -> exit code, imported when it is called. A results folder
# of the same name is given as ./NAME.
SUBCOMMANDS: dict[str, str] = {
    "compare": "cpm_tune.commands.compare:compare",
    "verify": "cpm_tune.commands.verify:verify",
    "plot": "cpm_tune.commands.leaderboard_plot:plot",
}


def leaderboard(argv: Sequence[str], prog: str) -> int:
    """`leaderboard RESULTS`, or `leaderboard SUBCOMMAND …`."""
    if argv and argv[0] in SUBCOMMANDS:
        module, _, function = SUBCOMMANDS[argv[0]].partition(":")
        run: Callable[[Sequence[str], str], int] = getattr(
            importlib.import_module(module), function
        )
        return run(argv[1:], f"{prog} leaderboard")
    return _tables(argv, prog)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}', expected a whole number from 0 on")
    return int(text)


def _tables(argv: Sequence[str], prog: str) -> int:
    p = make_parser(
        f"{prog} leaderboard",
        "Rank the runs of a results folder: a table for each dataset (text), or the whole board "
        "(every other format). Subcommands: " + ", ".join(sorted(SUBCOMMANDS)) + "; "
        f"`{prog} leaderboard SUBCOMMAND --help` says more.",
        f"examples:\n  {prog} leaderboard results\n"
        f"  {prog} leaderboard results --published\n"
        f"  {prog} leaderboard results --format html --out leaderboard.html\n"
        f"  {prog} leaderboard results --texts --out leaderboard.html\n"
        f"  {prog} leaderboard results --format latex --out leaderboard.tex\n"
        f"  {prog} leaderboard plot results --out figures",
    )
    p.add_argument("results", metavar="RESULTS", type=Path, nargs="?", default=Path("results"))
    p.add_argument(
        "--format",
        choices=FORMATS,
        help="csv has a line a score, csv-wide a line a row, html is one page that works offline "
        "(default: by the ending of --out, else text)",
    )
    p.add_argument("--out", metavar="FILE", type=Path, help="write here, not to the terminal")
    p.add_argument("--published", action="store_true", help="add published rows, marked as quoted")
    p.add_argument(
        "--predictions",
        metavar="N",
        type=_count,
        default=20,
        help="html: embed the first N test predictions of a run (default: 20)",
    )
    p.add_argument(
        "--texts",
        action=argparse.BooleanOptionalAction,
        help="html: embed the texts of these examples, too: prompts and options, shortened. Who "
        "gets the page gets them, and many datasets may not be handed on (default: only those of "
        "the bundled sample data)",
    )
    p.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help="with --texts: where the data is, with a folder for each task (default: where each "
        "run found it)",
    )
    p.add_argument(
        "--include",
        metavar="PATH",
        type=Path,
        action="append",
        default=[],
        help="a task file or a folder of them, for the place of its datasets; repeatable",
    )
    args = p.parse_args(argv)
    from cpm_tune.leaderboard.export import export, write

    if args.out is not None and args.out.is_dir():
        raise UserError(f"--out {args.out}: a folder; give the name of a file.")
    style = args.format or by_ending(args.out)
    if args.texts is not None and style != "html":
        p.error("--texts goes with the page: --format html, or --out FILE.html")
    if args.data is not None and not args.texts:
        p.error("--data goes with --texts")
    if args.data is not None and not args.data.is_dir():
        raise UserError(f"--data {args.data}: there is no such folder.")
    text, notes = export(
        args.results,
        style,
        published=args.published,
        include=tuple(args.include),
        per_run=args.predictions,
        texts="sample" if args.texts is None else "all" if args.texts else "none",
        data=args.data,
    )
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if args.out is None:
        print(text)
        return 0
    write(args.out, text)
    print(f"{args.out}: written ({style}, {args.out.stat().st_size:,} bytes)")
    return 0
