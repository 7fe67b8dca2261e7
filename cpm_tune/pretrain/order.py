"""Which rows are trained on when: a pure function of the seed and the row's number.

Row number g of the training belongs to one source; sources take turns by a low-discrepancy sequence
that follows their weights at every scale. Each source goes through its rows in a new order every
epoch. Nothing has to be replayed or stored to continue from any row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

GOLDEN = 0.6180339887498949
_BLOCK = 1 << 16


class RowOrder:
    """Row number -> (source number, row of that source), for any row number."""

    def __init__(self, n_rows: Sequence[int], weights: Sequence[float], seed: int) -> None:
        self.n_rows, self.seed = list(n_rows), seed
        self._edges = np.cumsum(np.array(weights, dtype=float) / sum(weights))
        self._offset = np.random.default_rng([seed, 2]).random()
        self._counts = [np.zeros(len(self.n_rows), dtype=np.int64)]  # before each block
        self._block = lru_cache(maxsize=1)(self._make_block)
        self._permutation = lru_cache(maxsize=len(n_rows) + 1)(self._make_permutation)

    def _sources(self, block: int) -> NDArray[np.int64]:
        number = np.arange(block * _BLOCK, (block + 1) * _BLOCK)
        point = (self._offset + number * GOLDEN) % 1.0
        return np.minimum(np.searchsorted(self._edges, point, side="right"), len(self.n_rows) - 1)

    def _make_block(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sources of a block's rows, and how many rows of its source each has before it."""
        while len(self._counts) <= block:
            last = self._sources(len(self._counts) - 1)
            self._counts.append(self._counts[-1] + np.bincount(last, minlength=len(self.n_rows)))
        sources = self._sources(block)
        before = np.empty(_BLOCK, dtype=np.int64)
        for source in range(len(self.n_rows)):
            mine = sources == source
            before[mine] = self._counts[block][source] + np.arange(mine.sum())
        return sources, before

    def _make_permutation(self, source: int, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, 3, source, epoch]).permutation(self.n_rows[source])

    def at(self, number: int) -> tuple[int, int]:
        """Return (source, row of the source) of training row `number`."""
        sources, before = self._block(number // _BLOCK)
        source, nth = int(sources[number % _BLOCK]), int(before[number % _BLOCK])
        epoch, place = divmod(nth, self.n_rows[source])
        return source, int(self._permutation(source, epoch)[place])

    def epochs(self, number: int) -> list[float]:
        """How often each source has been gone through before row `number`."""
        sources, _ = self._block(number // _BLOCK)
        done = self._counts[number // _BLOCK] + np.bincount(
            sources[: number % _BLOCK], minlength=len(self.n_rows)
        )
        return [float(d / n) for d, n in zip(done, self.n_rows, strict=True)]
