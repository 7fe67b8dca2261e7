"""What attention adds to its scores: relative positions and segments, and which pairs there are."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cpm_tune.backbone.ant.config import CPMAntConfig


class PositionBias(nn.Module):
    """Additive attention bias from relative position and segments.

    Within a segment: bidirectional T5 buckets of (key index - query index). Between segments: one
    bucket per (query segment, key segment), after the position buckets.
    """

    def __init__(self, config: CPMAntConfig) -> None:
        super().__init__()
        self._tables: dict[torch.device, Tensor] = {}
        self.buckets = config.position_bias_num_buckets
        self.max_distance = config.position_bias_max_distance
        self.segments = config.segment_types
        rows = self.buckets + self.segments**2
        self.relative_attention_bias = nn.Parameter(torch.empty(rows, config.num_heads))

    def _bucket(self, relative: Tensor) -> Tensor:
        """The bucket of each distance int64 (key index - query index)."""
        return self._table(relative.device)[
            relative.clamp(-self.max_distance, self.max_distance) + self.max_distance
        ]

    def _table(self, device: torch.device) -> Tensor:
        """The buckets of all distances from -max_distance to max_distance, computed on the CPU:
        some are exactly between two buckets, where the logarithm of a GPU may end in the other."""
        if device not in self._tables:
            with torch.inference_mode(False):
                every = torch.arange(-self.max_distance, self.max_distance + 1, device="cpu")
                table = self._computed(every).to(device)
            if type(table) is not Tensor:  # a fake one, of a measurement
                return table
            self._tables[device] = table
        return self._tables[device]

    def _computed(self, relative: Tensor) -> Tensor:
        half = self.buckets // 2
        exact = half // 2
        distance = relative.abs()
        far = torch.log(distance.float().clamp(min=1) / exact)
        far = exact + (far / math.log(self.max_distance / exact) * (half - exact)).long()
        near_or_far = torch.where(distance < exact, distance, far.clamp(max=half - 1))
        return near_or_far + (relative > 0) * half

    def forward(self, segment: Tensor) -> Tensor:
        """segment (batch, length) int64 -> bias (batch, heads, length, length)."""
        # One look-up per distance and a product of one-hot segments give the values that a gather
        # per (row, query, key) would, with far cheaper gradients.
        length, table = segment.shape[1], self.relative_attention_bias
        distance = torch.arange(1 - length, length, device=segment.device)
        index = torch.arange(length, device=segment.device)
        lookup = index[None, :] - index[:, None] + length - 1
        within = table[self._bucket(distance)][lookup].permute(2, 0, 1)
        number = torch.arange(self.segments, device=segment.device)
        one_hot = (segment[..., None] == number).to(table.dtype)[:, None]
        pairs = table[self.buckets :].view(self.segments, self.segments, -1).permute(2, 0, 1)
        between = one_hot @ pairs[None] @ one_hot.transpose(2, 3)
        same = (segment[:, :, None] == segment[:, None, :])[:, None]
        return torch.where(same, within, between)

    def last_row(self, segment: Tensor, index: Tensor) -> Tensor:
        """The bias of the last position alone. `index` is the position of each key: int64
        (batch, length), or (1, length) if it is the same for all rows.

        segment (batch, length) int64 -> (batch, heads, 1, length).
        """
        table, last = self.relative_attention_bias, segment[:, -1:]
        within = table[self._bucket(index - index[:, -1:])]
        between = table[self.buckets + last * self.segments + segment]
        chosen = torch.where((segment == last)[..., None], within, between)
        return chosen.transpose(1, 2)[:, :, None]


def attention_allowed(span: Tensor, context: Tensor) -> Tensor:
    """Which (query, key) pairs attend: (batch, length) x 2 -> bool (batch, length, length).

    A key is seen if it is context, or if the query is not context and does not precede it; only
    within one span. Every position sees itself, so no row is all masked.
    """
    index = torch.arange(span.shape[1], device=span.device)
    causal = index[None, :] <= index[:, None]
    seen = context[:, None, :] | (~context[:, :, None] & causal)
    same_span = span[:, :, None] == span[:, None, :]
    return seen & same_span
