"""Steps of the backbone that read and write less memory than torch's own chain of them.

Each equals the chain in its docstring up to rounding; what is frozen gets no gradient.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class _GatedGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(gate, x)
        return F.gelu(gate).mul_(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, x = ctx.saved_tensors
        to_x = F.gelu(gate).mul_(grad)
        to_gate = torch.ops.aten.gelu_backward(grad * x, gate)
        return to_gate, to_x


def gated_gelu(gate: Tensor, x: Tensor) -> Tensor:
    """gelu(gate) * x."""
    return _GatedGelu.apply(gate, x)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = scale.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, weight, scale = ctx.saved_tensors
        grad = grad * weight
        along = (grad * x).sum(-1, keepdim=True, dtype=torch.float32)
        along = along.mul_(scale.pow(3)).div_(-x.shape[-1])
        return (grad * scale).addcmul_(x, along).to(x.dtype), None, None


def frozen_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, the first factor in fp32."""
    return _RMSNorm.apply(x, weight, eps)
