"""Gives back the pages of a memory-mapped file that were read: they count as this process's memory,
and reading a few rows everywhere in a large file would count nearly all of it.

The kernel keeps them in its cache as long as there is room, so that reading them again is cheap.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

EVERY = 2_000  # rows, of which each may have brought 64 KiB of pages
LEAST = 64 * 2**20  # bytes of a file that is worth it
_MAPS = Path("/proc/self/maps")  # elsewhere than on Linux nothing is given back


class MappedFile:
    """A file that is mapped into this process's memory, and how many of its rows were read."""

    def __init__(self, path: str) -> None:
        self._path = os.path.realpath(path)  # as the kernel lists it
        large = Path(path).stat().st_size >= LEAST
        self._active = large and _MAPS.exists() and hasattr(mmap, "MADV_DONTNEED")
        self._read = 0

    def count(self, rows: int) -> None:
        """Note that rows were read; give the pages back after EVERY of them."""
        self._read += rows
        if self._active and self._read >= EVERY:
            self._read = 0
            self._give_back()

    def _give_back(self) -> None:
        advise = ctypes.CDLL(None).madvise
        for line in _MAPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            if line.endswith(self._path):
                start, end = (int(text, 16) for text in line.split(maxsplit=1)[0].split("-"))
                advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)
