"""Attention of sequences packed into one row, each within itself.

A dense mask over the row would make every sequence pay for all others. Here adjacent sequences of
one length are one batch to the attention kernel: a view, without padding or copies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

Attend = Callable[..., Tensor]
PADDING_SPAN = -1


@dataclass(frozen=True)
class Group:
    """`n` sequences of one length; `bias` (n or 1, heads, queries, length) of their attention."""

    n: int
    length: int
    bias: Tensor


@dataclass(frozen=True)
class SpanBias:
    """The attention bias of a whole row: of sequences and, after them, padding.

    Without `queries` every position is a query. Otherwise only some are: `queries`, int64, are the
    numbers of those of every sequence, one group after the other, filled up with repeated ones to
    equal numbers within a group; `order`, int64, is the place of each query among them.
    """

    groups: tuple[Group, ...]
    queries: Tensor | None = None
    order: Tensor | None = None

    @property
    def biases(self) -> tuple[Tensor, ...]:
        """The groups' biases."""
        return tuple(group.bias for group in self.groups)

    def of(self, biases: Sequence[Tensor]) -> SpanBias:
        """The same with these as the groups' biases."""
        groups = (replace(g, bias=b) for g, b in zip(self.groups, biases, strict=True))
        return replace(self, groups=tuple(groups))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, attend: Attend) -> Tensor:
        """Attention of a row: (1, queries, width) and twice (1, length, width) -> like query.

        `attend` does it for a batch: (batch, queries, width), twice (batch, length, width), bias.
        Padding gets zeros.
        """
        if self.queries is not None:
            query = query.index_select(1, self.queries)
        # split, not slices: the gradient of a slice is a whole row of zeros.
        each = [group.n * group.bias.shape[2] for group in self.groups]
        sizes = [group.n * group.length for group in self.groups]
        padding = query.shape[1] - sum(each)
        sizes.append(key.shape[1] - sum(sizes))
        parts = zip(
            torch.split(query[0], [*each, padding])[:-1],
            torch.split(key[0], sizes)[:-1],
            torch.split(value[0], sizes)[:-1],
            strict=True,
        )
        mixed = [
            attend(*(part.view(group.n, -1, part.shape[1]) for part in qkv), group.bias).flatten(
                0, 1
            )
            for group, qkv in zip(self.groups, parts, strict=True)
        ]
        if padding:
            mixed.append(query.new_zeros(padding, query.shape[2]))
        row = torch.cat(mixed)[None]
        return row if self.order is None else row.index_select(1, self.order)

    def at(self, positions: Tensor) -> SpanBias:
        """The same with the queries at `positions` (n,) alone: int64, ascending, not empty."""
        device, groups, queries, valid, start = positions.device, [], [], [], 0
        if not has_values(positions):  # shapes alone count
            each = -(-len(positions) // sum(group.n for group in self.groups))
            some = [replace(g, bias=g.bias[:, :, :each].clone()) for g in self.groups]
            chosen = positions.new_zeros(each * sum(group.n for group in self.groups))
            return SpanBias(tuple(some), chosen, positions)
        for group in self.groups:
            begins = start + group.length * torch.arange(group.n + 1, device=device)
            edges = torch.searchsorted(positions, begins)  # of each sequence, among the positions
            first, count = edges[:-1, None], edges.diff()[:, None]
            column = torch.arange(max(1, int(count.max())), device=device)
            which = (first + torch.minimum(column, count - 1).clamp(min=0)).clamp(
                max=len(positions) - 1
            )
            inside = (positions[which] - begins[:-1, None]).clamp(0, group.length - 1)
            if len(group.bias) == 1 and bool((inside == inside[:1]).all()):
                inside = inside[:1]
            row = torch.arange(len(inside), device=device)[:, None] % len(group.bias)
            bias = group.bias.transpose(1, 2)[row, inside].transpose(1, 2)
            groups.append(replace(group, bias=bias))
            queries.append(which.flatten())
            valid.append((column < count).flatten())
            start += group.n * group.length
        chosen = torch.cat(queries)
        real = torch.cat(valid).nonzero()[:, 0]
        order = torch.empty_like(positions)
        order[chosen[real]] = real
        return SpanBias(tuple(groups), chosen, order)


def has_values(tensor: Tensor) -> bool:
    """False where memory is measured with fake tensors."""
    return type(tensor).__name__ != "FakeTensor"


def runs(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """(start, number, length) of each run of adjacent sequences of one length."""
    each, start = [], 0
    for length, equal in groupby(lengths):
        n = len(list(equal))
        each.append((start, n, length))
        start += n * length
    return each
