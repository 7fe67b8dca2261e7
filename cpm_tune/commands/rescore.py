"""The command `rescore`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from cpm_tune.commands.arguments import make_parser
from cpm_tune.common.sizes import counted


def rescore(argv: Sequence[str], prog: str) -> int:
    """`rescore RESULTS`."""
    p = make_parser(
        f"{prog} rescore",
        "Recompute every metric from the stored predictions, and say what differs.",
        f"examples:\n  {prog} rescore results\n  {prog} rescore results --write\n\n"
        "exit code: 0 nothing differs (or was written), 1 scores differ or a run has faults",
    )
    p.add_argument("results", metavar="RESULTS", type=Path, nargs="?", default=Path("results"))
    p.add_argument(
        "--write", action="store_true", help="put the new scores into the records; old ones stay"
    )
    args = p.parse_args(argv)
    from cpm_tune.common.texts import table
    from cpm_tune.leaderboard.rescore import rescore_results

    done = rescore_results(args.results, write=args.write)
    if done.changes:
        rows = [
            (
                *(c.run_id, c.split, c.metric, f"{c.before.value:.4f}", f"{c.now.value:.4f}"),
                f"{c.now.value - c.before.value:+.4f}",
                ", ".join(
                    name
                    for name in ("low", "high", "n", "signature")
                    if getattr(c.before, name) != getattr(c.now, name)
                ),
            )
            for c in done.changes
        ]
        print(table(("run", "split", "metric", "before", "now", "difference", "also"), rows))
    for note in done.notes:
        print(f"note: {note}")
    for fault in done.faults:
        print(f"fault: {fault}", file=sys.stderr)
    written = "written" if args.write else "not written, see --write"
    n = len(done.changes)
    said = f"{counted(n, 'score')} differ{'s' * (n == 1)} ({written})" if n else "no score differs"
    print(f"{counted(done.n, 'run')} rescored, {said}")
    return 1 if done.faults or (done.changes and not args.write) else 0
