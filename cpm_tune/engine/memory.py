"""What glibc's malloc does with memory that a step on a CPU has freed."""

from __future__ import annotations

import contextlib
import ctypes

from torch import nn

# glibc's names and numbers (malloc.h), and values in bytes: what is kept, and its defaults but for
# the last, which are 1 MiB instead of up to 32.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_KEEP = {_TRIM_THRESHOLD: 2**28, _TOP_PAD: 2**26, _MMAP_THRESHOLD: 2**25}
_GIVE_BACK = {_TRIM_THRESHOLD: 2**17, _TOP_PAD: 2**17, _MMAP_THRESHOLD: 2**20}
_LARGE = 9 * 2**24  # bytes of weights from which on memory matters: 144 MiB


def set_malloc(model: nn.Module) -> None:
    """Keep freed memory for the next step, up to 256 MiB; with a large or streamed backbone give
    back every block of 1 MiB and more. Nothing without glibc.

    What goes back to the system is cleared page by page before it is given out again: up to a
    tenth of a small backbone's step. But in the heap torch's aligned blocks are hardly ever used
    again: the second step of a large one would take new memory for the same activations.
    """
    large = getattr(model, "streamed", False) or sum(p.nbytes for p in model.parameters()) >= _LARGE
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for name, value in (_GIVE_BACK if large else _KEEP).items():
            mallopt(name, value)
