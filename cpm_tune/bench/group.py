"""`python -m cpm_tune.bench.group`: one process of several of a trial."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cpm_tune.common.allocator import set_allocator
from cpm_tune.common.door import load
from cpm_tune.engine.process import begin, work


def run(argv: Sequence[str]) -> int:
    """Import what a trial needs, which takes seconds, and run it."""
    code: int = load("cpm_tune.bench.worker:run_in_group")(argv)
    return code


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    set_allocator(os.environ)
    argv, _ = begin()  # before the imports: from now on the process ends with its parent
    sys.exit(work(argv, main=False, run=run))
