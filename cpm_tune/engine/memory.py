"""Memory of training on a CPU: what a step frees, the next one takes again."""

from __future__ import annotations

import ctypes
import sys

# glibc's names and numbers (malloc.h), and values in bytes.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_SETTINGS = {_TRIM_THRESHOLD: 2**28, _TOP_PAD: 2**26, _MMAP_THRESHOLD: 2**25}


def keep_freed_memory() -> bool:
    """Let malloc keep up to 256 MiB of freed memory; return whether it does (with glibc).

    Otherwise every step's activations go back to the system, which clears them page by page before
    they are given out again: up to a tenth of a step.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return min(mallopt(name, value) for name, value in _SETTINGS.items()) == 1
