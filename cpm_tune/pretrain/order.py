"""Which rows are trained on when: a pure function of the seed and the row's number.

Documents are cut into pieces, the pieces of a source packed into rows once. Row number g of the
training belongs to one source; sources take turns by a low-discrepancy sequence that follows their
weights at every scale. Each source goes through its rows in a new order every epoch. Nothing has to
be replayed or stored to continue from any row.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cpm_tune.pretrain.store import CorpusSplit

GOLDEN = 0.6180339887498949
FRAME = 2  # <s> and </s>
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Pieces:
    """Pieces of documents, packed: row r holds pieces order[starts[r]:starts[r + 1]].

    begin, length: int64 (pieces,), into the split's tokens. `dropped`: tokens of too short pieces.
    """

    split: CorpusSplit
    begin: NDArray[np.int64]
    length: NDArray[np.int64]
    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    dropped: int

    @property
    def n_rows(self) -> int:
        """How many rows an epoch has."""
        return len(self.starts) - 1

    def row(self, number: int) -> list[NDArray[np.int64]]:
        """The pieces' ids of a row, without special entries."""
        numbers = self.order[self.starts[number] : self.starts[number + 1]]
        return [
            self.split.tokens[self.begin[i] : self.begin[i] + self.length[i]].astype(np.int64)
            for i in numbers
        ]


def cut_and_pack(
    split: CorpusSplit, width: int, prompt_length: int, shortest: int, seed: int
) -> Pieces:
    """Cut documents evenly into pieces that fit a row of `width`, and pack them into rows.

    A piece has at most width - prompt_length - 2 tokens; those under `shortest` are left out.
    """
    longest = width - prompt_length - FRAME
    sizes = np.diff(split.offsets)
    parts = np.maximum(1, -(-sizes // longest))
    document = np.repeat(np.arange(len(sizes)), parts)
    part = np.arange(len(document)) - np.repeat(np.cumsum(parts) - parts, parts)
    begin = split.offsets[document] + part * sizes[document] // parts[document]
    end = split.offsets[document] + (part + 1) * sizes[document] // parts[document]
    length = end - begin
    enough = length >= max(1, shortest)
    dropped = int(length[~enough].sum())
    begin, length = begin[enough], length[enough]
    order, starts = _pack(length + prompt_length + FRAME, width, seed)
    return Pieces(split, begin, length, order, starts, dropped)


def _pack(
    lengths: NDArray[np.int64], width: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Fill rows one by one, always with the longest piece that still fits (ties at random)."""
    shuffled = np.random.default_rng([seed, 1]).permutation(len(lengths))
    by_length = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    values, first = np.unique(lengths[by_length], return_index=True)
    left = dict(zip(values.tolist(), np.diff([*first, len(lengths)]).tolist(), strict=True))
    next_of = dict(zip(values.tolist(), first.tolist(), strict=True))
    available: list[int] = values.tolist()
    order: list[int] = []
    starts = [0]
    while available:
        free = width
        while available and (at := bisect_right(available, free)):
            size = available[at - 1]
            order.append(next_of[size])
            next_of[size] += 1
            left[size] -= 1
            free -= size
            if not left[size]:
                del available[at - 1]
        if len(order) == starts[-1]:
            raise ValueError("a piece is longer than a row")
        starts.append(len(order))
    return by_length[np.array(order, dtype=np.int64)], np.array(starts, dtype=np.int64)


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
