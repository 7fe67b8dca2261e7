"""`python -m cpm_tune.commands.worker`: the command line in one process of several (`--nproc`)."""

from __future__ import annotations

import sys

from cpm_tune.commands.cli import run
from cpm_tune.engine.process import begin, work

if __name__ == "__main__":
    sys.exit(work(*begin(), run))
