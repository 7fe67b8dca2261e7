"""The command `leaderboard verify`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cpm_tune.commands.arguments import make_parser


def verify(argv: Sequence[str], prog: str) -> int:
    """`leaderboard verify RESULTS`."""
    p = make_parser(
        f"{prog} verify",
        "Check every record of a results folder: schema, hashes, scores against predictions.",
        f"examples:\n  {prog} verify results\n\nexit code: 0 all right, 1 with faults",
    )
    p.add_argument("results", metavar="RESULTS", type=Path, nargs="?", default=Path("results"))
    args = p.parse_args(argv)
    from cpm_tune.common.sizes import counted
    from cpm_tune.leaderboard.verify import verify_results

    n, faults = verify_results(args.results)
    for fault in faults:
        print(f"fault  {fault}")
    print(f"{counted(n, 'record')} checked, {counted(len(faults), 'fault')}")
    return 1 if faults else 0
