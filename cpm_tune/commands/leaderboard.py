"""The command `leaderboard`, and its subcommands by name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cpm_tune.arguments import make_parser

# Each subcommand's function (argv, prog) -> exit code, imported when it is called. A results folder
# of the same name is given as ./NAME.
SUBCOMMANDS: dict[str, str] = {
    "compare": "cpm_tune.commands.compare:compare",
    "verify": "cpm_tune.commands.verify:verify",
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


def _tables(argv: Sequence[str], prog: str) -> int:
    p = make_parser(
        f"{prog} leaderboard",
        "Rank the runs of a results folder.",
        f"examples:\n  {prog} leaderboard results\n  {prog} leaderboard results --format md",
    )
    p.add_argument("results", metavar="RESULTS", type=Path, nargs="?", default=Path("results"))
    p.add_argument("--format", choices=["text", "md", "json"], default="text")
    args = p.parse_args(argv)
    from cpm_tune.leaderboard import table

    text, warnings = table.leaderboard(args.results, args.format)
    for warning in warnings:
        print(f"note: {warning}", file=sys.stderr)
    print(text)
    return 0
