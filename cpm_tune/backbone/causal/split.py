"""Linear layers as deltas need them: GPT-2's Conv1D transposed, and a fused projection of queries,
keys and values as three. All of them are those of `cpm_tune.backbone.layers`, which are faster; so
is torch's own GELU than one written out, of which eight operators keep four results for the
backward pass.

The outputs are the same up to rounding; `joined` is the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cpm_tune.backbone.base import LowRank
from cpm_tune.backbone.causal.hf import Conv1D
from cpm_tune.backbone.layers import Linear
from cpm_tune.errors import UserError

PARTS = ("q", "k", "v")
# By the class of an attention module: its fused projection, and whether that is in parts per head.
_FUSED = {
    "GPT2Attention": ("c_attn", False),
    "BloomAttention": ("query_key_value", True),
    "GPTNeoXAttention": ("query_key_value", True),
    "Phi3Attention": ("qkv_proj", False),
}


_TANH_GELUS = {"NewGELUActivation", "FastGELUActivation"}  # the same formula, written in two ways


class FusedLinear(nn.Module):
    """Three linear layers `q`, `k` and `v` whose outputs are given together: one after the other,
    or with `heads` in turn for each head."""

    def __init__(self, q: nn.Linear, k: nn.Linear, v: nn.Linear, heads: int | None) -> None:
        super().__init__()
        self.q, self.k, self.v, self.heads = q, k, v, heads

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out of all three)."""
        parts = [self.q(x), self.k(x), self.v(x)]
        if self.heads is None:
            return torch.cat(parts, -1)
        by_head = [part.unflatten(-1, (self.heads, -1)) for part in parts]
        return torch.stack(by_head, -2).flatten(-3)


def split(model: nn.Module) -> None:
    """Replace linear layers, Conv1D, GELU's approximation by tanh, and known fused projections of
    queries, keys and values within a model."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Conv1D):
                setattr(module, name, _linear(child.weight.detach().t(), child.bias))
            elif type(child) is nn.Linear:  # not one with a forward pass of its own
                setattr(module, name, _with_parameters(child.weight, child.bias))
            elif type(child).__name__ in _TANH_GELUS:
                setattr(module, name, nn.GELU(approximate="tanh"))
        fused, by_head = _FUSED.get(type(module).__name__, ("", False))
        if isinstance(whole := getattr(module, fused, None) if fused else None, nn.Linear):
            heads = _heads(model) if by_head else None
            sizes = _sizes(model, whole.out_features)
            weights = _cut(whole.weight.detach(), sizes, heads)
            biases = [None] * 3 if whole.bias is None else _cut(whole.bias.detach(), sizes, heads)
            parts = [_linear(w, b) for w, b in zip(weights, biases, strict=True)]
            setattr(module, fused, FusedLinear(parts[0], parts[1], parts[2], heads))


def _linear(weight: Tensor, bias: Tensor | None) -> Linear:
    own_bias = None if bias is None else nn.Parameter(bias.detach())
    return _with_parameters(nn.Parameter(weight.contiguous()), own_bias)


def _with_parameters(weight: Tensor, bias: nn.Parameter | None) -> Linear:
    """A layer with these parameters, which others may share."""
    made = Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = weight
    if bias is not None:
        made.bias = bias
    return made


def _heads(model: Any) -> int:
    return int(model.config.num_attention_heads)


def _sizes(model: Any, rows: int) -> list[int]:
    """Rows of queries, keys and values in a fused projection."""
    config = model.config
    key_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = rows // (config.num_attention_heads + 2 * key_heads)
    return [head * config.num_attention_heads, head * key_heads, head * key_heads]


def _cut(whole: Tensor, sizes: list[int], heads: int | None) -> list[Tensor]:
    """The rows of each of three parts."""
    if heads is None:
        return list(torch.split(whole, sizes))
    by_head = whole.reshape(heads, 3, -1, *whole.shape[1:])
    return [by_head[:, part].flatten(0, 1) for part in range(3)]


def _joined(parts: list[Tensor], heads: int | None) -> Tensor:
    if heads is None:
        return torch.cat(parts)
    return torch.stack([part.view(heads, -1, *part.shape[1:]) for part in parts], 1).flatten(0, 2)


def joined(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model that was `split`, under transformers' names and in its shapes."""
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    for name, module in model.named_modules():
        if isinstance(module, FusedLinear):
            for key in ("weight", "bias"):
                names = [f"{name}.{part}.{key}" for part in PARTS]
                if names[0] in state:
                    parts = [state.pop(each) for each in names]
                    state[f"{name}.{key}"] = _joined(parts, module.heads)
    for name in transposed(model):
        state[f"{name}.weight"] = state[f"{name}.weight"].t().contiguous()
    return state


def sources(model: nn.Module) -> dict[str, tuple[str, Callable[[Tensor], Tensor]]]:
    """Of the parameters of a model that was `split`, those that are not whole tensors of
    transformers': the name of the tensor, and what of it a parameter is, as a view if it can be."""
    conv1d, made = {*transposed(model)}, dict[str, tuple[str, Callable[[Tensor], Tensor]]]()
    for name, module in model.named_modules():
        turned = name in conv1d
        if isinstance(module, FusedLinear):
            sizes = [getattr(module, part).out_features for part in PARTS]
            for number, part in enumerate(PARTS):
                cut = partial(_part, sizes=sizes, heads=module.heads, number=number)
                made[f"{name}.{part}.weight"] = f"{name}.weight", partial(cut, turned=turned)
                made[f"{name}.{part}.bias"] = f"{name}.bias", cut
        elif turned:
            made[f"{name}.weight"] = f"{name}.weight", Tensor.t
    return made


def _part(
    whole: Tensor, *, sizes: list[int], heads: int | None, number: int, turned: bool = False
) -> Tensor:
    return _cut(whole.t() if turned else whole, sizes, heads)[number]


def fused_loras(model: nn.Module, loras: Mapping[str, LowRank]) -> dict[str, LowRank]:
    """LoRAs of the parts of fused projections as one of each: A's below each other, and the B of
    each part in its rows and columns."""
    made: dict[str, LowRank] = {}
    parts: dict[str, dict[str, LowRank]] = {}
    for name, pair in loras.items():
        whole, _, part = name.rpartition(".")
        if isinstance(model.get_submodule(whole), FusedLinear):
            parts.setdefault(whole, {})[part] = pair
        else:
            made[name] = pair
    for whole, given in parts.items():
        fused = model.get_submodule(whole)
        assert isinstance(fused, FusedLinear)
        below, rank, start = list[Tensor](), sum(len(a) for a, _ in given.values()), 0
        for part in PARTS:
            rows = getattr(fused, part).out_features
            block = torch.zeros(rows, rank)
            if part in given:
                a, b = given[part]
                block[:, start : start + len(a)] = b
                start += len(a)
            below.append(block)
        a = torch.cat([given[part][0] for part in PARTS if part in given])
        made[whole] = a, _joined(below, fused.heads)
    return made


def parts_of_loras(model: nn.Module, loras: Mapping[str, LowRank]) -> dict[str, LowRank]:
    """The way back of `fused_loras`: one A for all parts; those without any effect are left out."""
    modules = dict(model.named_modules())
    made: dict[str, LowRank] = {}
    used: set[str] = set()
    for name, (a, b) in loras.items():
        fused = modules.get(name)
        if not isinstance(fused, FusedLinear):
            made[name] = a, b
            continue
        sizes = [getattr(fused, part).out_features for part in PARTS]
        if len(b) != sum(sizes):
            raise UserError(f"a LoRA of {name} adds {len(b)} values, expected {sum(sizes)}.")
        for part, rows in zip(PARTS, _cut(b, sizes, fused.heads), strict=True):
            made[f"{name}.{part}"] = a, rows
            if bool(rows.any()):
                used.add(part)
    inside = {f"{name}.{part}" for name in loras for part in set(PARTS) - (used or set(PARTS))}
    return {name: pair for name, pair in made.items() if name not in inside}


def transposed(model: Any) -> list[str]:
    """Names of the layers that transformers has as Conv1D."""
    if model.config.model_type not in ("gpt2", "openai-gpt", "imagegpt"):
        return []
    kinds = (nn.Linear, FusedLinear)
    inside = {name for name, module in model.named_modules() if isinstance(module, FusedLinear)}
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, kinds)
        and name.rpartition(".")[0] not in inside
        and module is not model.get_output_embeddings()
    ]
