"""The command `leaderboard verify`."""

from __future__ import annotations

from cpm_tune.commands.options.leaderboard import Verify
from cpm_tune.common.sizes import counted
from cpm_tune.leaderboard.verify import verify_results


def run(options: Verify) -> int:
    """Check records, print their faults."""
    n, faults = verify_results(options.results)
    for fault in faults:
        print(f"fault  {fault}")
    print(f"{counted(n, 'record')} checked, {counted(len(faults), 'fault')}")
    return 1 if faults else 0
