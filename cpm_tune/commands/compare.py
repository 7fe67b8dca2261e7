"""The command `leaderboard compare`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from cpm_tune.commands.arguments import make_parser

EXAMPLES = """examples:
  {prog} compare results/RUN results/OTHER
  {prog} compare lora adapter --results results
  {prog} compare lora@train.lr=0.01 "My system"
  {prog} compare --matrix

A row is a run's folder, a delta (lora), BACKBONE:DELTA, or the name of a scored system, in
--results; @key=value tells a delta's settings apart. The seeds of a row are compared together."""


def compare(argv: Sequence[str], prog: str) -> int:
    """`leaderboard compare A B [C ...]`."""
    p = make_parser(
        f"{prog} compare",
        "Compare rows on the same examples, dataset by dataset.",
        EXAMPLES.format(prog=prog),
    )
    p.add_argument("rows", metavar="ROW", nargs="*")
    p.add_argument("--results", metavar="DIR", type=Path, default=Path("results"))
    p.add_argument("--matrix", action="store_true", help="wins, ties and losses (default: of all)")
    p.add_argument("--split", choices=["dev", "test"], default="test")
    p.add_argument("--metric", metavar="NAME", help="default: the one that ranks")
    p.add_argument("--test", choices=["auto", "permutation", "mcnemar"], default="auto")
    p.add_argument("--resamples", metavar="N", type=int, default=10_000)
    p.add_argument("--seed", type=int, default=0, help="of the resampling (default: 0)")
    p.add_argument("--format", choices=["text", "md", "json"], default="text")
    args = p.parse_intermixed_args(argv)  # rows before and after options
    if len(args.rows) < 2 and not (args.matrix and not args.rows):
        p.error("give two rows or more, or --matrix alone")
    if args.resamples < 100:
        p.error(f"--resamples is {args.resamples}, expected 100 or more")
    if args.seed < 0:
        p.error(f"--seed is {args.seed}, expected a whole number from 0")
    from cpm_tune.leaderboard.compare import Method, compare_rows
    from cpm_tune.leaderboard.compare_text import render
    from cpm_tune.metrics import get_metric

    if args.metric is not None:
        get_metric(args.metric)
    method = Method(
        args.split,
        args.metric,
        args.test,
        args.resamples,
        args.seed,
        with_interval=not args.matrix or args.format == "json",
    )
    report, warnings = compare_rows(args.rows, args.results, method, every=args.matrix)
    for warning in warnings:
        print(f"note: {warning}", file=sys.stderr)
    print(render(report, args.format, args.matrix))
    return 0
