"""Layers that the families' own networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cpm_tune.backbone.fused import linear, rms_norm
from cpm_tune.backbone.storage.shards import whole_shape


def embedding(rows: int, dim: int) -> nn.Embedding:
    """An embedding without values: drawing them on the meta device costs torch a long import."""
    return nn.Embedding(rows, dim, _weight=torch.empty(rows, dim))


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension, computed in fp32, weight only."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    @property
    def widths(self) -> tuple[int, int]:
        (width,) = whole_shape(self.weight)
        return width, width

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class Linear(nn.Linear):
    """torch's, by default without bias, and faster where it is frozen."""

    def __init__(
        self, taken: int, given: int, *, bias: bool = False, device: str | None = None
    ) -> None:
        super().__init__(taken, given, bias=bias, device=device)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
