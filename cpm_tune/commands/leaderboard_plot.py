"""The command `leaderboard plot`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from cpm_tune.commands.arguments import make_parser

COSTS = ("n_trainable", "bytes", "seconds", "peak_memory_bytes", "samples_per_second")


def plot(argv: Sequence[str], prog: str) -> int:
    """`leaderboard plot RESULTS --out DIR`."""
    p = make_parser(
        f"{prog} plot",
        "Draw the page's figures as PNG and SVG: the seven capabilities, cost and quality with its "
        "Pareto front, learning curves. Needs matplotlib (the extra plot).",
        f"examples:\n  {prog} plot results --out figures\n"
        f"  {prog} plot results --out figures --cost seconds --published",
    )
    p.add_argument("results", metavar="RESULTS", type=Path, nargs="?", default=Path("results"))
    p.add_argument("--out", metavar="DIR", type=Path, required=True, help="where the files go")
    p.add_argument(
        "--row",
        metavar="NAME",
        action="append",
        default=[],
        help="a row as the table names it; repeatable, at most eight (default: the first four)",
    )
    p.add_argument("--cost", choices=COSTS, default="n_trainable", help="of the scatter")
    p.add_argument("--published", action="store_true", help="know the published rows too")
    p.add_argument("--include", metavar="PATH", type=Path, action="append", default=[])
    args = p.parse_args(argv)
    from cpm_tune.leaderboard.aggregate import make_board
    from cpm_tune.leaderboard.plot import draw
    from cpm_tune.leaderboard.results import read_folder

    results = read_folder(args.results)
    board = make_board(results, tuple(args.include), args.published)
    for note in board.left_out:
        print(f"note: {note}", file=sys.stderr)
    if not board.rows:
        print(f"{args.results}: no finished runs, nothing drawn.")
        return 0
    for path in draw(board, results, args.out, args.row, args.cost):
        print(path)
    return 0
