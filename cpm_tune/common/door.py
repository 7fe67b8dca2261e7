"""The door through which modules of this package are imported late.

Importing torch takes a second, so a command's file is imported after its arguments are parsed, a
worker in its own process; and what stands on OpenDelta, BMTrain or FSDP2 where it is asked for.
Everywhere else this package's modules are imported at the top of a file.
"""

from __future__ import annotations

import importlib
from typing import Any


def load(target: str) -> Any:
    """Return what "package.module:name" names; its module is imported now."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
