"""The command `predict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cpm_tune.commands.arguments import add_holding, make_parser


def predict(argv: Sequence[str], prog: str) -> int:
    """`predict RUN`."""
    p = make_parser(
        f"{prog} predict",
        "Predict with a finished run: another file, another split, a submission.",
        f"examples:\n  {prog} predict results/RUN --data DIR --submission\n"
        f"  {prog} predict results/RUN --split dev --out predictions\n"
        f"  {prog} predict results/RUN --delta-from ADAPTER",
    )
    p.add_argument("run", metavar="RUN", type=Path, help="the folder of a finished run")
    p.add_argument("--data", metavar="DIR", type=Path, help="official files (default: sample data)")
    p.add_argument("--split", choices=["train", "dev", "test"], default="test")
    p.add_argument("--out", metavar="DIR", type=Path, help="default: RUN.SPLIT.predictions here")
    p.add_argument("--backbone", metavar="NAME|DIR", help="where the run's backbone is now")
    p.add_argument(
        "--delta-from",
        metavar="DIR",
        type=Path,
        help="another delta for this backbone instead: a run's folder, or a LoRA saved by PEFT",
    )
    p.add_argument("--limit", metavar="N", type=int, help="the first N rows")
    add_holding(p)
    p.add_argument(
        "--submission", action="store_true", help="also write the file the organisers score"
    )
    p.add_argument("--include", metavar="PATH", type=Path, action="append", default=[])
    args = p.parse_args(argv)
    if args.limit is not None and args.limit < 1:
        p.error(f"--limit is {args.limit}, expected a whole number from 1")
    from cpm_tune.api import load_run

    options = vars(args)
    made = load_run(options.pop("run")).predict(**options)
    for name, score in made.scores.items():
        print(
            f"{made.split} {name} {score.value:.4f}  [{score.low:.4f}, {score.high:.4f}]  "
            f"n={score.n}"
        )
    for note in made.warnings:
        print(f"warning    {note}")
    print(f"written    {', '.join(map(str, made.files))}")
    return 0
