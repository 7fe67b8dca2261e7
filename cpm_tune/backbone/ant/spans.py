"""Attention of sequences packed into one row, each within itself.

A dense mask over the row would make every sequence pay for all others. Here sequences of similar
lengths are one batch to the attention kernel (`cpm_tune.backbone.ant.packing`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cpm_tune.backbone.ant.packing import Gather, Packing, Part
from cpm_tune.backbone.ant.position import attention_allowed

Attend = Callable[..., Tensor]
PADDING_SPAN = -1


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return x.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return grad.index_select(0, back), None, None


def gathered(x: Tensor, gather: Gather, back: bool = False) -> Tensor:
    """The rows of x (from, width) in their other places: (to, width); or back. The gradient is the
    gather the other way: no sums, so the same bits every time."""
    there, other = (gather.back, gather.there) if back else (gather.there, gather.back)
    result: Tensor = _Gathered.apply(x, there, other)  # type: ignore[no-untyped-call]
    return result


@dataclass(frozen=True)
class SpanBias:
    """The attention bias of a whole row: of sequences and, after them, padding.

    biases: of each part of the packing, (n or 1, heads, queries, length). With `at_targets` the
    queries are those at the packing's `rows` alone.
    """

    packing: Packing
    biases: tuple[Tensor, ...]
    at_targets: bool = False

    def of(self, biases: Sequence[Tensor]) -> SpanBias:
        """The same with these biases."""
        return replace(self, biases=tuple(biases))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, attend: Attend) -> Tensor:
        """Attention of a row: (1, queries, width) and twice (1, length, width) -> like query.

        `attend` does it for a batch: (batch, queries, width), twice (batch, length, width), bias.
        """
        parts, padded = self.packing.parts, self.packing.padded
        sizes = [part.n * part.length for part in parts]
        keys = _split(key.squeeze(0), sizes, padded)
        values = _split(value.squeeze(0), sizes, padded)
        if self.at_targets:
            each = [part.n * part.queries for part in parts]
            queries = _split(query.squeeze(0), each, self.packing.queries)
        else:
            queries = _split(query.squeeze(0), sizes, padded)
        mixed = [
            attend(*(x.view(part.n, -1, x.shape[1]) for x in qkv), bias).flatten(0, 1)
            for part, bias, *qkv in zip(parts, self.biases, queries, keys, values, strict=True)
        ]
        if self.at_targets:
            return gathered(_joined(mixed), self.packing.queries, back=True)[None]
        if padded is not None:
            return gathered(_joined(mixed), padded, back=True)[None]
        mixed.append(query.new_zeros(query.shape[1] - sum(sizes), query.shape[2]))
        return torch.cat(mixed)[None]

    def at(self) -> SpanBias:
        """The same for the queries at the packing's `rows` alone."""
        biases = []
        for part, bias in zip(self.packing.parts, self.biases, strict=True):
            assert part.chosen is not None
            if len(bias) == len(part.chosen) == 1:
                biases.append(bias.index_select(2, part.chosen[0]))
                continue
            row = torch.arange(part.n, device=bias.device)[:, None]
            row = row % len(bias)
            biases.append(bias.transpose(1, 2)[row, part.chosen].transpose(1, 2))
        return replace(self, biases=tuple(biases), at_targets=True)


def parts_of(row: Tensor, packing: Packing) -> list[Tensor]:
    """A row of ids as its parts: (n, length) each."""
    if packing.padded is not None:
        row = row.index_select(0, packing.padded.there)
    sizes = [part.n * part.length for part in packing.parts]
    cuts = torch.split(row, [*sizes, len(row) - sum(sizes)])
    return [cut.view(part.n, -1) for part, cut in zip(packing.parts, cuts, strict=False)]


def seen_within(part: Part) -> Tensor | None:
    """Which (query, key) pairs of a part's sequences attend: bool (1 or n, length, length); None if
    all do."""
    if part.context is None or part.ends is None:
        return None
    index = torch.arange(part.length, device=part.ends.device)
    inside = index < part.ends
    return attention_allowed(torch.zeros_like(inside), part.context) & inside[:, None]


def _split(row: Tensor, sizes: list[int], gather: Gather | None) -> Sequence[Tensor]:
    """The parts of a row, gathered or views, without what follows them. By split, not slices: the
    gradient of a slice is a whole row of zeros."""
    if gather is not None:
        row = gathered(row, gather)
    if len(row) > sum(sizes):
        sizes = [*sizes, len(row) - sum(sizes)]
        return torch.split(row, sizes)[:-1]
    return [row] if len(sizes) == 1 else torch.split(row, sizes)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
