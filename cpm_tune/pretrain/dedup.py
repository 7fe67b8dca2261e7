"""Drops documents most of whose paragraphs were seen before, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

SHARE = Fraction(7, 10)  # exact: as a float, 0.7 * 90 is less than 63
RECENT = 1_000_000


def paragraph_hashes(text: str) -> list[int]:
    """A 64-bit hash per paragraph (line), outer white space aside; empty ones do not count."""
    return [
        int.from_bytes(hashlib.blake2b(line.encode(), digest_size=8).digest(), "little")
        for part in text.split("\n")
        if (line := part.strip())
    ]


class SeenParagraphs:
    """The set of hashes so far: 8 bytes each in sorted arrays, plus one small recent set."""

    def __init__(self, recent: int = RECENT) -> None:
        self._limit = recent
        self._recent: set[int] = set()
        self._sorted: list[NDArray[np.uint64]] = []

    def __len__(self) -> int:
        return len(self._recent) + sum(map(len, self._sorted))

    def _seen(self, hashes: Sequence[int]) -> NDArray[np.bool_]:
        seen = np.fromiter((h in self._recent for h in hashes), dtype=bool, count=len(hashes))
        if self._sorted:
            wanted = np.array(hashes, dtype=np.uint64)
            for known in self._sorted:
                at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
                seen |= known[at] == wanted
        return seen

    def count_seen(self, hashes: Sequence[int]) -> int:
        """How many of the hashes are in the set, repeats included."""
        return int(self._seen(hashes).sum())

    def add(self, hashes: Sequence[int]) -> None:
        """Add hashes; arrays of similar size are merged, so that there are few."""
        seen = self._seen(hashes)
        self._recent.update(h for h, known in zip(hashes, seen, strict=True) if not known)
        if len(self._recent) < self._limit:
            return
        array = np.fromiter(self._recent, dtype=np.uint64, count=len(self._recent))
        self._recent.clear()
        while self._sorted and len(self._sorted[-1]) <= 2 * len(array):
            array = np.concatenate([self._sorted.pop(), array])  # no hash is in two of them
        array.sort()  # in place: np.union1d and np.unique would need several times the memory
        self._sorted.append(array)

    def is_duplicate(self, text: str) -> bool:
        """Whether more than 70% of the paragraphs were seen before; if not, they are added."""
        hashes = paragraph_hashes(text)
        if not hashes or self.count_seen(hashes) > SHARE * len(hashes):
            return True
        self.add(hashes)
        return False
