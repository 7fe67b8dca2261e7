"""Documents as rows of one width, for pre-training: cut into pieces that are packed, or end to end.

Document i is tokens[offsets[i]:offsets[i + 1]].
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pieces:
    """Pieces of documents, packed: row r holds pieces order[starts[r]:starts[r + 1]].

    begin, length: int64 (pieces,), into the tokens. `dropped`: tokens of too short pieces.
    """

    tokens: NDArray[Any]
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
            self.tokens[self.begin[i] : self.begin[i] + self.length[i]].astype(np.int64)
            for i in numbers
        ]


def cut_and_pack(
    tokens: NDArray[Any],
    offsets: NDArray[np.int64],
    width: int,
    frame: int,
    shortest: int,
    seed: int,
) -> Pieces:
    """Cut documents evenly into pieces that fit a row of `width`, and pack them into rows.

    `frame`: how many tokens the objective puts around a piece, which has at most width - frame;
    pieces under `shortest` are left out.
    """
    longest = width - frame
    sizes = np.diff(offsets)
    parts = np.maximum(1, -(-sizes // longest))
    document = np.repeat(np.arange(len(sizes)), parts)
    part = np.arange(len(document)) - np.repeat(np.cumsum(parts) - parts, parts)
    begin = offsets[document] + part * sizes[document] // parts[document]
    end = offsets[document] + (part + 1) * sizes[document] // parts[document]
    length = end - begin
    enough = length >= max(1, shortest)
    dropped = int(length[~enough].sum())
    begin, length = begin[enough], length[enough]
    order, starts = _pack(length + frame, width, seed)
    return Pieces(tokens, begin, length, order, starts, dropped)


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


@dataclass(frozen=True)
class EndToEnd:
    """Documents one after the other, each with `end` after it, cut into rows of `width` tokens.

    The documents' order is drawn once, by the seed. A row has one token more: the last one of the
    row before it, and for the first row `end`; the last row may be shorter. So every token but that
    first one is in exactly one row as a token after others.
    """

    tokens: NDArray[Any]
    offsets: NDArray[np.int64]
    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    width: int
    end: int

    @classmethod
    def of(
        cls,
        tokens: NDArray[Any],
        offsets: NDArray[np.int64],
        width: int,
        end: int,
        seed: int,
    ) -> EndToEnd:
        """Lay documents end to end; empty ones are left out."""
        sizes = np.diff(offsets)
        order = np.random.default_rng([seed, 1]).permutation(len(sizes))
        order = order[sizes[order] > 0]
        starts = np.concatenate(([0], np.cumsum(sizes[order] + 1)))
        return cls(tokens, offsets, order, starts, width, end)

    @property
    def n_rows(self) -> int:
        """How many rows an epoch has."""
        return int(-(-self.starts[-1] // self.width))

    def row(self, number: int) -> list[NDArray[np.int64]]:
        """The ids of a row, as one piece: int64 (width + 1,), or fewer for the last one."""
        first = number * self.width - 1  # in the text of all documents
        last = min(first + self.width + 1, int(self.starts[-1]))
        parts = [np.full(1, self.end, np.int64)] if first < 0 else []
        at = max(first, 0)
        document = int(np.searchsorted(self.starts, at, side="right")) - 1
        while at < last:
            begin = self.offsets[self.order[document]]
            size = int(self.starts[document + 1] - self.starts[document]) - 1
            inside = at - int(self.starts[document])
            stop = min(size, inside + last - at)
            parts.append(self.tokens[begin + inside : begin + stop].astype(np.int64))
            at += stop - inside
            if at < last:
                parts.append(np.full(1, self.end, np.int64))
                at += 1
            document += 1
        return [np.concatenate(parts)]
