"""Where the sequences of a packed row are, for attention: worked out on the host, before a step.

Attention sees each sequence alone. Adjacent sequences of similar lengths are one part, one call of
the kernel: (n, length), each padded to the part's length. How similar is a choice: with equal
lengths alone parts are views of the row, otherwise the row is gathered into them and back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cpm_tune.backbone.base import row_length

EXACT, SIMILAR, FEW = 1.0, 0.75, 0.3  # the shortest sequence of a part, as a share of the longest
_MULTIPLE = 16  # of padded lengths: few shapes, and what GPU kernels like

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Gather:
    """Rows `there` int64 (to,) of a matrix (from, width), and where each is found again, `back`
    int64 (from,). Padding on either side stands for padding on the other, of which there is some:
    its gradient is zero, so that each gather is the other's gradient."""

    there: Tensor
    back: Tensor


@dataclass(frozen=True)
class Part:
    """`n` adjacent sequences, padded to `length`. A first dimension of 1 stands for n equal ones.

    segments: int64 (1 or n, length); None: the beginning of the first part's. ends: int64 (1 or n,
    1), the sequences' lengths; context: bool (1 or n, length); both None if every position sees all
    of the part's. chosen: int64 (1 or n, queries), which positions the last layer's queries are.
    """

    n: int
    length: int
    segments: Tensor | None
    ends: Tensor | None
    context: Tensor | None
    queries: int = 0
    chosen: Tensor | None = None


@dataclass(frozen=True)
class Packing:
    """A row's parts. padded: between the row and the padded parts, end to end; None if these are
    views of the row.

    The last layer's queries are at `rows` int64 (rows,), the distinct targets in order and then a
    padding position; queries: between those and the parts' queries, padded, end to end; targets:
    int64 (targets,), which of the rows each target is.
    """

    parts: tuple[Part, ...]
    padded: Gather | None
    rows: Tensor
    queries: Gather
    targets: Tensor


def pack(
    lengths: Sequence[int],
    segment: NDArray[Any],
    context: NDArray[Any],
    targets: Sequence[int] | NDArray[Any],
    shortest: float,
) -> Packing:
    """The packing of a row of sequences and, after them, at least one position of padding.

    lengths: the longest first. segment int, context bool: (row,). targets: positions. shortest: of
    a part's longest length, the share that its others have at least: EXACT, SIMILAR or FEW.
    """
    row, each, width = len(segment), np.asarray(lengths), 0
    starts = np.cumsum(each) - each
    there, back = [], np.full(row, -1)
    at, parts = _Targets(np.asarray(targets), starts, row), list[Part]()
    first_segments: Ints | None = None
    for first, n, length in _cuts(lengths, shortest):
        column, ends = np.arange(length), each[first : first + n, None]
        where = starts[first : first + n, None] + np.minimum(column, ends - 1)
        real = column < ends
        there.append(np.where(real, where, row - 1).ravel())
        back[where[real]] = width + np.flatnonzero(real)
        width += n * length
        segments = _one(segment[where])
        as_first = first_segments is not None and len(segments) == len(first_segments) == 1
        if as_first and np.array_equal(segments, first_segments[:, :length]):  # type: ignore[index]
            shown = None
        else:
            shown = torch.from_numpy(segments.astype(np.int64))
        first_segments = segments if first_segments is None else first_segments
        seen = context[where]
        plain = bool(seen.all() and real.all())
        seen, ends = np.split(_one(np.concatenate((seen, ends), axis=1)), [length], axis=1)
        chosen = at.chosen(first, n, first + n == len(each))
        parts.append(
            Part(
                n=n,
                length=length,
                segments=shown,
                ends=None if plain else torch.from_numpy(ends),
                context=None if plain else torch.from_numpy(seen.astype(bool)),
                queries=chosen.shape[1],
                chosen=torch.from_numpy(chosen),
            )
        )
    views = width == int(each.sum())
    padded = None if views else _gather(np.concatenate(there), back, row - 1)
    return Packing(tuple(parts), padded, at.rows, at.gather(), at.targets)


class _Targets:
    """Collects where the last layer's queries are, part by part."""

    def __init__(self, targets: Ints, starts: Ints, row: int) -> None:
        self._at, inverse = np.unique(targets, return_inverse=True)
        self._starts, self._n = starts, row_length(len(self._at) + 1)
        self._sequence = np.searchsorted(starts, self._at, side="right") - 1
        self._there, self._back, self._width = list[Ints](), np.full(self._n, -1), 0
        padding = np.full(self._n - len(self._at), row - 1)
        self.rows = torch.from_numpy(np.concatenate((self._at, padding)))
        self.targets = torch.from_numpy(inverse.reshape(-1).astype(np.int64))

    def chosen(self, first: int, n: int, last: bool) -> Ints:
        """`Part.chosen` of sequences first to first + n; some is padding, in the last part if in no
        other."""
        begin, end = np.searchsorted(self._sequence, (first, first + n))
        number = np.arange(begin, end)
        sequence = self._sequence[begin:end]
        nth = number - np.searchsorted(self._sequence, sequence)
        queries = int(nth.max(initial=0)) + 1
        queries += last and end == self._width + n * queries
        place = (sequence - first) * queries + nth
        there, inside = np.full(n * queries, self._n - 1), np.zeros(n * queries, np.int64)
        there[place], inside[place] = number, self._at[begin:end] - self._starts[sequence]
        self._back[begin:end] = self._width + place
        self._there.append(there)
        self._width += n * queries
        return _one(inside.reshape(n, queries))

    def gather(self) -> Gather:
        return _gather(np.concatenate(self._there), self._back, self._n - 1)


def _gather(there: Ints, back: Ints, padding: int) -> Gather:
    back[back < 0] = np.flatnonzero(there == padding)[0]
    return Gather(torch.from_numpy(there), torch.from_numpy(back))


def _one(rows: NDArray[Any]) -> NDArray[Any]:
    """The first of equal rows, or all."""
    return rows[:1] if (rows == rows[:1]).all() else rows


def _cuts(lengths: Sequence[int], shortest: float) -> Iterator[tuple[int, int, int]]:
    """(first sequence, number, padded length) of each part."""
    first = 0
    for number in range(1, len(lengths) + 1):
        if number == len(lengths) or lengths[number] < shortest * lengths[first]:
            longest = lengths[first]
            padded = longest if shortest == EXACT else -(-longest // _MULTIPLE) * _MULTIPLE
            yield first, number - first, padded
            first = number
