"""The command `rescore`."""

from __future__ import annotations

import sys

from cpm_tune.commands.options.runs import Rescore
from cpm_tune.common.sizes import counted
from cpm_tune.common.texts import table
from cpm_tune.leaderboard.rescore import rescore_results


def run(options: Rescore) -> int:
    """Recompute metrics, print the scores that differ."""
    rescored = rescore_results(options.results, write=options.write)
    if rescored.changes:
        rows = [
            (
                *(c.run_id, c.split, c.shown, f"{c.before.value:.4f}", f"{c.now.value:.4f}"),
                f"{c.now.value - c.before.value:+.4f}",
                ", ".join(
                    name
                    for name in ("low", "high", "n", "signature")
                    if getattr(c.before, name) != getattr(c.now, name)
                ),
            )
            for c in rescored.changes
        ]
        print(table(("run", "split", "metric", "before", "now", "difference", "also"), rows))
    for note in rescored.notes:
        print(f"note: {note}")
    for fault in rescored.faults:
        print(f"fault: {fault}", file=sys.stderr)
    written = "written" if options.write else "not written, see --write"
    n = len(rescored.changes)
    result = (
        f"{counted(n, 'score')} differ{'s' * (n == 1)} ({written})" if n else "no score differs"
    )
    print(f"{counted(rescored.n, 'run')} rescored, {result}")
    return 1 if rescored.faults or (rescored.changes and not options.write) else 0
