"""CPM-Ant's layers, under the original names.

A module with `widths`, the sizes of the last dimension of its input and output, is one that deltas
may modify.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.spans import SpanBias
from cpm_tune.backbone.fused import attention, gated_gelu
from cpm_tune.backbone.kv_cache import KVCache
from cpm_tune.backbone.layers import Linear, RMSNorm


class Attention(nn.Module):
    """Multi-head attention with an additive bias that carries both positions and mask."""

    def __init__(self, config: CPMAntConfig) -> None:
        super().__init__()
        inner = config.num_heads * config.dim_head
        self.project_q = Linear(config.dim_model, inner)
        self.project_k = Linear(config.dim_model, inner)
        self.project_v = Linear(config.dim_model, inner)
        self.attention_out = Linear(inner, config.dim_model)
        self.dim_head = config.dim_head
        self.dropout_p = config.dropout_p

    @property
    def widths(self) -> tuple[int, int]:
        return self.project_q.in_features, self.attention_out.out_features

    @property
    def key_width(self) -> int:
        """Values of one key, of all heads."""
        return self.project_k.out_features

    def forward(
        self,
        x: Tensor,
        bias: Tensor | SpanBias,
        cache: KVCache | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """x (batch, length, dim_model), bias (batch, heads, length, keys) -> like x.

        The keys are those of `memory` (batch, keys, dim_model), by default x's own, after those of
        the cache (which takes them), if there is one.
        """
        memory = x if memory is None else memory
        query, key, value = self.project_q(x), self.project_k(memory), self.project_v(memory)
        if isinstance(bias, SpanBias):
            mixed = bias.attend(query, key, value, self._attend)
        else:
            mixed = self._attend(query, key, value, bias, cache)
        return self.attention_out(mixed)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, cache: KVCache | None = None
    ) -> Tensor:
        def heads(projected: Tensor) -> Tensor:
            return projected.view(*projected.shape[:2], -1, self.dim_head).transpose(1, 2)

        query, key, value = heads(query), heads(key), heads(value)
        if cache is not None:
            key, value = cache.append(key, value)
        key, value, bias = self.extend(key, value, bias)
        dropout = self.dropout_p if self.training else 0.0
        mixed = attention(query, key, value, bias.to(query.dtype), dropout)
        return mixed.transpose(1, 2).flatten(2)

    def extend(self, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What queries see besides the sequence: nothing here; a prefix delta replaces this."""
        return key, value, bias


class SelfAttentionBlock(nn.Module):
    """x + attention(norm(x))."""

    def __init__(self, config: CPMAntConfig) -> None:
        super().__init__()
        self.layernorm_before_attention = RMSNorm(config.dim_model, config.eps)
        self.self_attention = Attention(config)
        self.dropout = nn.Dropout(config.dropout_p)

    @property
    def widths(self) -> tuple[int, int]:
        return self.layernorm_before_attention.widths

    def forward(
        self,
        x: Tensor,
        bias: Tensor | SpanBias,
        cache: KVCache | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """x (batch, length, dim_model) -> like x; with `rows` int64 (n,), of these positions alone,
        for which `bias` is then."""
        normed = self.layernorm_before_attention(x)
        if rows is None:
            mixed = self.self_attention(normed, bias, cache)
        else:
            x = x.index_select(1, rows)
            mixed = self.self_attention(normed.index_select(1, rows), bias, cache, normed)
        return x + self.dropout(mixed)


class GatedInput(nn.Module):
    """GELU(w_0 x) * (w_1 x)."""

    def __init__(self, config: CPMAntConfig) -> None:
        super().__init__()
        self.w_0 = Linear(config.dim_model, config.dim_ff)
        self.w_1 = Linear(config.dim_model, config.dim_ff)

    @property
    def widths(self) -> tuple[int, int]:
        return self.w_0.in_features, self.w_0.out_features

    def forward(self, x: Tensor) -> Tensor:
        return gated_gelu(self.w_0(x), self.w_1(x))


class FeedForward(nn.Module):
    """The gated feed-forward network."""

    def __init__(self, config: CPMAntConfig) -> None:
        super().__init__()
        self.w_in = GatedInput(config)
        self.dropout = nn.Dropout(config.dropout_p)
        self.w_out = Linear(config.dim_ff, config.dim_model)

    @property
    def widths(self) -> tuple[int, int]:
        return self.w_in.w_0.in_features, self.w_out.out_features

    def forward(self, x: Tensor) -> Tensor:
        return self.w_out(self.dropout(self.w_in(x)))


class FFNBlock(nn.Module):
    """x + ffn(norm(x))."""

    def __init__(self, config: CPMAntConfig) -> None:
        super().__init__()
        self.layernorm_before_ffn = RMSNorm(config.dim_model, config.eps)
        self.ffn = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout_p)

    @property
    def widths(self) -> tuple[int, int]:
        return self.layernorm_before_ffn.widths

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.ffn(self.layernorm_before_ffn(x)))


class TransformerBlock(nn.Module):
    """One layer; a masked sub-block is absent and has no parameters."""

    def __init__(self, config: CPMAntConfig, masked: tuple[bool, bool]) -> None:
        super().__init__()
        self.self_att = None if masked[0] else SelfAttentionBlock(config)
        self.ffn = None if masked[1] else FFNBlock(config)

    def forward(
        self,
        x: Tensor,
        bias: Tensor | SpanBias,
        cache: KVCache | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        if self.self_att is not None:
            x = self.self_att(x, bias, cache, rows)
        return x if self.ffn is None else self.ffn(x)


class Encoder(nn.Module):
    """The stack of layers and the last norm."""

    def __init__(self, config: CPMAntConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerBlock(config, m) for m in config.mask_modules)
        self.output_layernorm = RMSNorm(config.dim_model, config.eps)
        attending = [n for n, masked in enumerate(config.mask_modules) if not masked[0]]
        self.last_attention = attending[-1] if attending else -1

    def forward(
        self,
        x: Tensor,
        bias: Tensor | SpanBias,
        caches: Sequence[KVCache | None] | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """x (batch, length, dim_model) -> like x.

        With `rows` int64 (n,), ascending: of these positions alone, (batch, n, dim_model). From the
        last attention's queries on, nothing else is computed.
        """
        if rows is not None and self.last_attention < 0:
            x, rows = x.index_select(1, rows), None
        caches = caches or [None] * len(self.layers)
        for number, (layer, cache) in enumerate(zip(self.layers, caches, strict=True)):
            if rows is not None and number == self.last_attention:
                at = bias.at() if isinstance(bias, SpanBias) else bias.index_select(2, rows)
                x = layer(x, at, cache, rows)
            else:
                x = layer(x, bias, cache)
        return self.output_layernorm(x)
