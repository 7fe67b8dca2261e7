"""Steps of the backbone that move less memory than torch's own chain of operations.

Each equals the chain in its docstring up to rounding, and gives gradients to what can be trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight' + bias in fp32 on a CPU, by oneDNN: faster than MKL, where F.linear goes."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        (weight,) = ctx.saved_tensors
        to_x, _, to_bias = ctx.needs_input_grad
        return (
            _product(grad, weight.t()) if to_x else None,
            None,
            grad.flatten(0, -2).sum(0) if to_bias else None,
        )


_ONEDNN = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def is_plain(weight: Tensor) -> bool:
    """Whether a weight is values and nothing else: not a quantized one."""
    return not hasattr(weight, "__tensor_flatten__")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight' + bias, as F.linear has it; by oneDNN where it is fp32 on a CPU and the weight is
    not trained."""
    gradients = torch.is_grad_enabled()
    trained = weight.requires_grad and gradients
    fp32 = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if trained or not (
        fp32 and _ONEDNN and x.device.type == "cpu" and x.numel() and is_plain(weight)
    ):
        return F.linear(x, weight, bias)
    if gradients and (x.requires_grad or (bias is not None and bias.requires_grad)):
        result: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return result
    return _product(x, weight, bias)


class _GatedGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, x: Tensor, kind: str) -> Tensor:
        ctx.save_for_backward(gate, x)
        ctx.kind = kind
        return F.gelu(gate, approximate=kind).mul_(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        gate, x = ctx.saved_tensors
        to_gate = torch.ops.aten.gelu_backward(grad * x, gate, approximate=ctx.kind)
        return to_gate, F.gelu(gate, approximate=ctx.kind).mul_(grad), None


def gated_gelu(gate: Tensor, x: Tensor, *, tanh: bool = False) -> Tensor:
    """gelu(gate) * x, without keeping gelu(gate); with `tanh`, GELU's approximation by it."""
    kind = "tanh" if tanh else "none"
    result: Tensor = _GatedGelu.apply(gate, x, kind)  # type: ignore[no-untyped-call]
    return result


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
        if x.dtype == torch.float16:  # whose sums overflow with a scaled loss
            along = (grad.float() * x).sum(-1, keepdim=True).mul_(scale**3)
        else:
            along = torch.linalg.vecdot(grad, x)[..., None].float().mul_(scale**3)
        to_x = (grad * scale).addcmul_(x.to(scale.dtype), along, value=-1 / x.shape[-1])
        return to_x.to(x.dtype), None, None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension in fp32, times weight in x's dtype."""
    weight = weight.to(x.dtype)
    if x.device.type != "cpu":
        with torch.autocast("cuda", enabled=False):
            return F.rms_norm(x, x.shape[-1:], weight, eps)  # one kernel, in fp32 within
    if weight.requires_grad and torch.is_grad_enabled():
        return F.rms_norm(x.float(), x.shape[-1:], eps=eps).to(x.dtype) * weight
    result: Tensor = _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return result


class _LowRank(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        weight: Tensor,
        down: Tensor,
        up: Tensor,
        scaling: float,
    ) -> Tensor:
        read = x if dropped is None else dropped
        result, inner = linear(x, weight), F.linear(read, down)
        result.flatten(0, -2).addmm_(inner.flatten(0, -2), up.t(), alpha=scaling)
        ctx.save_for_backward(read, weight, down, up, inner)
        ctx.scaling, ctx.apart = scaling, dropped is not None
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        read, weight, down, up, inner = ctx.saved_tensors
        grad, to_x, to_dropped = grad.flatten(0, -2), None, None
        to_inner = _scaled_product(grad, up, ctx.scaling)
        if ctx.needs_input_grad[0]:
            to_x = linear(grad, weight.t())
            if ctx.apart:
                to_dropped = (to_inner @ down).view_as(read)
            else:
                to_x.addmm_(to_inner, down)
            to_x = to_x.view_as(read)
        to_up = _scaled_product(grad.t(), inner.flatten(0, -2), ctx.scaling)
        return to_x, to_dropped, None, to_inner.t() @ read.flatten(0, -2), to_up, None


def autocast_dtype(x: Tensor) -> torch.dtype:
    """The dtype of products with x: autocast's, or its own."""
    kind = x.device.type
    autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if autocast else x.dtype


class _CastTogether(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *values: Tensor) -> tuple[Tensor, ...]:
        made = [torch.empty_like(value, dtype=dtype) for value in values]
        torch._foreach_copy_(made, values)
        return tuple(made)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        made = [torch.empty_like(grad, dtype=torch.float32) for grad in grads]
        torch._foreach_copy_(made, grads)
        return None, *made


def cast_together(values: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """fp32 values in another dtype, by one kernel, and their gradients back by one."""
    result: tuple[Tensor, ...] = _CastTogether.apply(dtype, *values)  # type: ignore[no-untyped-call]
    return result


def _scaled_product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    return torch.addmm(a.new_empty(()), a, b, beta=0, alpha=scale)


def low_rank_linear(
    x: Tensor, weight: Tensor, down: Tensor, up: Tensor, scaling: float, p: float = 0.0
) -> Tensor:
    """x weight' + scaling * dropout(x, p) down' up', weight frozen; all in x's dtype, or
    autocast's."""
    dtype = autocast_dtype(x)
    x, weight, down, up = (tensor.to(dtype) for tensor in (x, weight, down, up))
    dropped = dropout(x, p) if p else None
    result: Tensor = _LowRank.apply(x, dropped, weight, down, up, scaling)  # type: ignore[no-untyped-call]
    return result


def dropout(x: Tensor, p: float) -> Tensor:
    """x with a share p of its values zero, the others divided by 1 - p.

    On a CPU torch draws each value separately; here 64 bits are drawn for four of them, in less
    than half the time (p to within 1 / 65,536).
    """
    if x.device.type != "cpu":
        return F.dropout(x, p)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = bits.view(torch.int16)[: x.numel()].view(x.shape) >= round(p * 2**16) - 2**15
    return x * kept.to(x.dtype).div_(1 - p)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float
    ) -> Tensor:
        ctx.scale = scale
        batch = query.shape[:2]
        query, key, value = (part.flatten(0, 1) for part in (query * ctx.scale, key, value))
        scores = torch.bmm(query, key.transpose(1, 2))
        scores.view(*batch, *scores.shape[1:]).add_(bias)
        p = scores.softmax(-1)
        ctx.save_for_backward(query, key, value, p)
        return torch.bmm(p, value).view(*batch, *query.shape[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, p = ctx.saved_tensors
        batch, grad = grad.shape[:2], grad.flatten(0, 1)
        to_p = torch.bmm(grad, value.transpose(1, 2))
        to_scores = torch.ops.aten._softmax_backward_data(to_p, p, -1, p.dtype)
        to_query = torch.bmm(to_scores, key).mul_(ctx.scale)
        to_key, to_value = (
            torch.bmm(left.transpose(1, 2), right)
            for left, right in ((to_scores, query), (p, grad))
        )
        return *(to.view(*batch, *to.shape[1:]) for to in (to_query, to_key, to_value)), None, None


def aligned(bias: Tensor) -> Tensor:
    """The same bias (..., keys), on a GPU in memory whose rows begin at multiples of 8 values.

    Its attention kernel asks for that and would copy any other bias once per layer.
    """
    if bias.device.type == "cpu" or not bias.shape[-1] % 8:
        return bias
    keys = bias.shape[-1]
    return F.pad(bias, (0, -keys % 8))[..., :keys]


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale query key' + bias) value, over (batch, heads, length, dim_head); the scale is
    by default 1 / sqrt(dim_head).

    On a CPU, torch's kernel is slow in half precision, four times in its backward pass.
    """
    half = query.device.type == "cpu" and query.dtype != torch.float32
    if half and not dropout and not (bias.requires_grad and torch.is_grad_enabled()):
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        result: Tensor = _Attention.apply(query, key, value, bias, scale)  # type: ignore[no-untyped-call]
        return result
    return F.scaled_dot_product_attention(query, key, value, bias, dropout, scale=scale)
