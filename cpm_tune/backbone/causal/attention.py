"""Attention with trained keys and values before a model's own (prefix tuning).

Transformers lets attention be replaced by name. Ours is its `sdpa`; where a delta has given an
attention module the method `extend` (`cpm_tune.delta.layers.PrefixLayer`), that adds to keys,
values and mask first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cpm_tune.backbone.causal.hf import (
    AttentionInterface,
    AttentionMaskInterface,
    sdpa_attention_forward,
    sdpa_mask,
)

NAME = "cpm_tune_sdpa"


def forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **named: Any,
) -> tuple[Tensor, None]:
    """As transformers' attention functions: query (batch, heads, length, head), key and value
    (batch, key heads, keys, head)."""
    extend = vars(module).get("extend")
    if extend is not None:
        bias = _as_bias(attention_mask, query, key)
        key, value, attention_mask = extend(key, value, bias)
        named["is_causal"] = False
    result: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, **named
    )
    return result


def _as_bias(mask: Tensor | None, query: Tensor, key: Tensor) -> Tensor:
    """A mask, or that of causal attention if there is none, as (batch or 1, 1, length, keys) to
    add."""
    if mask is None:
        n, keys = query.shape[2], key.shape[2]
        ones = torch.ones(n, keys, dtype=torch.bool, device=query.device)
        mask = ones.tril(keys - n)[None, None]
    if mask.dtype != torch.bool:
        return mask.to(query.dtype)
    lowest = torch.finfo(query.dtype).min
    return torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, lowest)


def use(model: Any) -> None:
    """Let a model of transformers' that uses `sdpa` use this instead."""
    if model.config._attn_implementation == "sdpa" and model._supports_attention_backend:
        model.set_attn_implementation(NAME)


AttentionInterface.register(NAME, forward)
AttentionMaskInterface.register(NAME, sdpa_mask)
