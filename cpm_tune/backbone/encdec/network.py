"""T5's layers, under transformers' names: relative position buckets, RMS norms, no biases, scores
that are not divided.

The position bias of a stack is a module of the stack here, not of its first layer. A layer is
called with hidden states first, everything else by place, and returns hidden states.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpm_tune.backbone.encdec.config import EncDecConfig
from cpm_tune.backbone.fused import attention, dropout, gated_gelu
from cpm_tune.backbone.kv_cache import Cached
from cpm_tune.backbone.layers import Linear, RMSNorm, embedding


class Kept(Protocol):
    """What one layer's attention keeps while texts are generated."""

    def append(self, key: Tensor, value: Tensor) -> Cached:
        """Add keys and values; return all that were added so far."""
        ...

    def once(self, made: Callable[[], Cached]) -> Cached:
        """What was made by the first call."""
        ...


_LARGEST = torch.finfo(torch.float16).max - 1000


class Dropout(nn.Module):
    """Zeroes a share of values in training."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training and self.p else x


class Attention(nn.Module):
    """Multi-head attention whose scores are not divided, with an additive bias for positions and
    masks."""

    def __init__(self, config: EncDecConfig) -> None:
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.q, self.k, self.v = (Linear(config.d_model, inner) for _ in range(3))
        self.o = Linear(inner, config.d_model)
        self.d_kv, self.dropout_rate = config.d_kv, config.dropout_rate

    @property
    def widths(self) -> tuple[int, int]:
        return self.q.in_features, self.o.out_features

    @property
    def key_width(self) -> int:
        """Values of one key, of all heads."""
        return self.k.out_features

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.view(*projected.shape[:2], -1, self.d_kv).transpose(1, 2)

    def keys(self, memory: Tensor) -> Cached:
        """Keys and values of hidden states (batch, length, d_model)."""
        return self._heads(self.k(memory)), self._heads(self.v(memory))

    def forward(
        self,
        x: Tensor,
        bias: Tensor,
        memory: Tensor | None = None,
        kept: Kept | None = None,
    ) -> Tensor:
        """x (batch, length, d_model), bias (batch or 1, heads or 1, length, keys) -> like x.

        The keys are those of `memory` (batch, keys, d_model), or of x itself, after those that
        `kept` has. A memory's keys are kept, too: they are made once.
        """
        query = self._heads(self.q(x))
        if memory is None:
            key, value = self.keys(x)
            if kept is not None:
                key, value = kept.append(key, value)
        else:
            made = partial(self.keys, memory)
            key, value = made() if kept is None else kept.once(made)
        key, value, bias = self.extend(key, value, bias)
        rate = self.dropout_rate if self.training else 0.0
        mixed = attention(query, key, value, bias.to(query.dtype), rate, scale=1.0)
        return self.o(mixed.transpose(1, 2).flatten(2))

    def extend(self, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What queries see besides the sequence: nothing here; a prefix delta replaces this."""
        return key, value, bias


class SelfAttentionLayer(nn.Module):
    """x + attention(norm(x))."""

    def __init__(self, config: EncDecConfig) -> None:
        super().__init__()
        self.SelfAttention = Attention(config)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = Dropout(config.dropout_rate)

    def forward(self, x: Tensor, bias: Tensor, kept: Kept | None = None) -> Tensor:
        return x + self.dropout(self.SelfAttention(self.layer_norm(x), bias, None, kept))


class CrossAttentionLayer(nn.Module):
    """x + attention(norm(x), the encoder's)."""

    def __init__(self, config: EncDecConfig) -> None:
        super().__init__()
        self.EncDecAttention = Attention(config)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = Dropout(config.dropout_rate)

    def forward(self, x: Tensor, bias: Tensor, memory: Tensor, kept: Kept | None = None) -> Tensor:
        return x + self.dropout(self.EncDecAttention(self.layer_norm(x), bias, memory, kept))


class Dense(nn.Module):
    """wo(relu(wi x)), or gated: wo(act(wi_0 x) * (wi_1 x))."""

    def __init__(self, config: EncDecConfig) -> None:
        super().__init__()
        names = ("wi_0", "wi_1") if config.feed_forward_proj.startswith("gated") else ("wi",)
        for name in names:
            self.add_module(name, Linear(config.d_model, config.d_ff))
        self.wo = Linear(config.d_ff, config.d_model)
        self.dropout = Dropout(config.dropout_rate)
        self.kind = config.feed_forward_proj

    @property
    def widths(self) -> tuple[int, int]:
        return self.wo.out_features, self.wo.out_features

    def forward(self, x: Tensor) -> Tensor:
        inner = [linear(x) for name, linear in self.named_children() if name.startswith("wi")]
        if self.kind == "relu":
            mixed = inner[0].relu()
        elif self.kind == "gated-silu":
            mixed = F.silu(inner[0]) * inner[1]
        else:
            mixed = gated_gelu(inner[0], inner[1], tanh=True)
        result: Tensor = self.wo(self.dropout(mixed))
        return result


class DenseLayer(nn.Module):
    """x + dense(norm(x))."""

    def __init__(self, config: EncDecConfig) -> None:
        super().__init__()
        self.DenseReluDense = Dense(config)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = Dropout(config.dropout_rate)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.DenseReluDense(self.layer_norm(x)))


class EncoderBlock(nn.Module):
    """One layer of the encoder: self-attention, feed-forward."""

    def __init__(self, config: EncDecConfig) -> None:
        super().__init__()
        # not a list of modules: BMTrain would make each one a layer of its own
        self.layer = nn.Sequential(SelfAttentionLayer(config), DenseLayer(config))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return _finite(self.layer[1](_finite(self.layer[0](x, bias))))


class DecoderBlock(nn.Module):
    """One layer of the decoder: self-attention, attention to the encoder, feed-forward."""

    def __init__(self, config: EncDecConfig) -> None:
        super().__init__()
        parts = SelfAttentionLayer(config), CrossAttentionLayer(config), DenseLayer(config)
        self.layer = nn.Sequential(*parts)

    def forward(
        self,
        x: Tensor,
        bias: Tensor,
        memory: Tensor,
        cross_bias: Tensor,
        kept: Kept | None = None,
    ) -> Tensor:
        """x (batch, length, d_model), memory (batch, keys, d_model): the encoder's."""
        x = _finite(self.layer[0](x, bias, kept))
        x = _finite(self.layer[1](x, cross_bias, memory, kept))
        return _finite(self.layer[2](x))


def _finite(x: Tensor) -> Tensor:
    """Hidden states that fp16 can hold, as transformers keeps them; others as they are."""
    return x.clamp(-_LARGEST, _LARGEST) if x.dtype == torch.float16 else x


class Stack(nn.Module):
    """Layers, the position bias that they share, and the last norm."""

    def __init__(self, config: EncDecConfig, decoder: bool) -> None:
        super().__init__()
        n = config.num_decoder_layers if decoder else config.num_layers
        kind = DecoderBlock if decoder else EncoderBlock
        self.block = nn.ModuleList(kind(config) for _ in range(n))
        buckets = config.relative_attention_num_buckets
        self.relative_attention_bias = embedding(buckets, config.num_heads)
        self.final_layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = Dropout(config.dropout_rate)
        self.both_ways, self.distance = not decoder, config.relative_attention_max_distance

    def bias(self, relative: Tensor) -> Tensor:
        """relative int64 (..., queries, keys): key's minus query's place -> what each head adds,
        (..., heads, queries, keys)."""
        table = self.relative_attention_bias
        return table(self._bucket(relative)).movedim(-1, -3)

    def _bucket(self, relative: Tensor) -> Tensor:
        """T5's buckets: one for each near distance, wider ones for far distances; for keys after
        the query others than before it, or the same as for itself if they are never seen."""
        n, first = self.relative_attention_bias.num_embeddings, torch.zeros_like(relative)
        if self.both_ways:
            n //= 2
            first = (relative > 0) * n
            relative = relative.abs()
        else:
            relative = (-relative).clamp(min=0)
        near = n // 2
        share = torch.log(relative.clamp(min=1).float() / near) / math.log(self.distance / near)
        far = (near + (share * (n - near)).long()).clamp(max=n - 1)
        return first + torch.where(relative < near, relative, far)

    def forward(self, x: Tensor, *given: Tensor, kept: Sequence[Kept] = ()) -> Tensor:
        """x (batch, length, d_model), what every layer is given and what each keeps -> hidden
        states like x."""
        x = self.dropout(x)
        for number, layer in enumerate(self.block):
            x = layer(x, *given, *kept[number : number + 1])
        return self.dropout(self.final_layer_norm(x))
