"""The name of the command line, for messages that tell what to run."""

from __future__ import annotations

import sys
from pathlib import Path


def program() -> str:
    """cpm-tune if that was called, the installed command; otherwise tune.py, that of a checkout."""
    return "cpm-tune" if Path(sys.argv[0]).stem == "cpm-tune" else "tune.py"
