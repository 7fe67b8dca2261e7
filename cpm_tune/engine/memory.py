"""Sets what glibc's malloc and oneDNN keep of what a step on a CPU has used."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

from torch import nn

# glibc's names and numbers (malloc.h), with values in bytes: one set keeps memory; the other is the
# default, except for the last value, 1 MiB instead of up to 32.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_KEEP = {_TRIM_THRESHOLD: 2**28, _TOP_PAD: 2**26, _MMAP_THRESHOLD: 2**25}
_GIVE_BACK = {_TRIM_THRESHOLD: 2**17, _TOP_PAD: 2**17, _MMAP_THRESHOLD: 2**20}
_told = {"large": False}  # the last backbone's kind, for `keeping_freed`
_PRODUCTS = 256  # shapes of products that oneDNN keeps prepared, not 1,024
_LARGE = 9 * 2**24  # bytes of weights from which memory matters: 144 MiB


def keeps_freed(weights: int) -> bool:
    """Whether freed memory is kept with a backbone of that many bytes, unless it is streamed."""
    return weights < _LARGE


def set_memory(model: nn.Module) -> None:
    """Keep freed memory for the next step, up to 256 MiB; with a large or streamed backbone return
    every block of 1 MiB or more to the system. Does nothing without glibc.

    The system clears returned pages before it hands them out again, up to a tenth of a small
    backbone's step. But the heap hardly ever reuses torch's aligned blocks: the second step of a
    large backbone would take new memory for the same activations.

    oneDNN reads how many shapes it keeps before its first product; a user's number stays.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_PRODUCTS))
    size = sum(p.nbytes for p in model.parameters())
    large = getattr(model, "streamed", False) or not keeps_freed(size)
    _set(_GIVE_BACK if large else _KEEP)
    _told["large"] = large


@contextlib.contextmanager
def keeping_freed() -> Iterator[None]:
    """Keep freed memory meanwhile, also with a large backbone.

    For generation: what a token takes is freed before the next one, which takes the same, and
    nothing that lives longer comes in between. Cleared pages were a third of reading a prompt.
    """
    if not _told["large"]:
        yield
        return
    _set(_KEEP)
    try:
        yield
    finally:
        _set(_GIVE_BACK)
        with contextlib.suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)


def _set(values: dict[int, int]) -> None:
    with contextlib.suppress(OSError, AttributeError, TypeError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        for name, value in values.items():
            mallopt(name, value)
