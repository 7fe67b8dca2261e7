"""The command `leaderboard`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from cpm_tune.arguments import make_parser


def leaderboard(argv: Sequence[str], prog: str) -> int:
    """`leaderboard RESULTS`."""
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
