"""CPM-Ant as one plain torch module, with the original state-dict names.

Weights are folded: the original code divides by sqrt(fan-in) at run time, here (and in Hugging
Face's format) that factor is already in the weight, so that y = W x. A delta that adds to a
module's output, as OpenDelta's LoRA does, sees the same input and output either way. Original
checkpoints are folded once, when they are loaded (`cpm_tune.backbone.ant.checkpoint`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.position import PositionBias, attention_allowed
from cpm_tune.backbone.ant.spans import Group, SpanBias, has_values, runs
from cpm_tune.backbone.fused import attention, gated_gelu, linear, rms_norm
from cpm_tune.backbone.storage.shards import fill, whole_shape


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension, computed in fp32, weight only."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class Linear(nn.Linear):
    """torch's, without bias, and faster where it is frozen."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight)


class KVCache:
    """One layer's keys and values at up to `capacity` positions, allocated once, filled in order.

    The first `append` decides batch, heads, dtype and device.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.filled = capacity, 0
        self._both: Tensor | None = None  # keys and values: (2, batch, heads, capacity, dim_head)

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add (batch, heads, new, dim_head) each; return views of all that was added so far."""
        start, self.filled = self.filled, self.filled + key.shape[2]
        if self._both is None:
            batch, heads, _, dim_head = key.shape
            self._both = key.new_empty(2, batch, heads, self.capacity, dim_head)
        self._both[0, :, :, start : self.filled] = key
        self._both[1, :, :, start : self.filled] = value
        return self._both[0, :, :, : self.filled], self._both[1, :, :, : self.filled]

    def keep(self, rows: Tensor) -> None:
        """Row i becomes what row `rows[i]` was, the rest goes. Rows that stay are not copied."""
        if self._both is None:
            return
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
        used = self._both[:, :, :, : self.filled]
        used[:, moved] = used[:, rows[moved]]
        self._both = self._both[:, : len(rows)]


class Attention(nn.Module):
    """Multi-head attention with an additive bias that carries both positions and mask."""

    def __init__(self, config: CPMAntConfig) -> None:
        super().__init__()
        inner = config.num_heads * config.dim_head
        self.project_q = Linear(config.dim_model, inner, bias=False)
        self.project_k = Linear(config.dim_model, inner, bias=False)
        self.project_v = Linear(config.dim_model, inner, bias=False)
        self.attention_out = Linear(inner, config.dim_model, bias=False)
        self.dim_head = config.dim_head
        self.dropout_p = config.dropout_p

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
        self.w_0 = Linear(config.dim_model, config.dim_ff, bias=False)
        self.w_1 = Linear(config.dim_model, config.dim_ff, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return gated_gelu(self.w_0(x), self.w_1(x))


class FeedForward(nn.Module):
    """The gated feed-forward network."""

    def __init__(self, config: CPMAntConfig) -> None:
        super().__init__()
        self.w_in = GatedInput(config)
        self.dropout = nn.Dropout(config.dropout_p)
        self.w_out = Linear(config.dim_ff, config.dim_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_out(self.dropout(self.w_in(x)))


class FFNBlock(nn.Module):
    """x + ffn(norm(x))."""

    def __init__(self, config: CPMAntConfig) -> None:
        super().__init__()
        self.layernorm_before_ffn = RMSNorm(config.dim_model, config.eps)
        self.ffn = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout_p)

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
                at = bias.at(rows) if isinstance(bias, SpanBias) else bias.index_select(2, rows)
                x = layer(x, at, cache, rows)
            else:
                x = layer(x, bias, cache)
        return self.output_layernorm(x)


def embedding(rows: int, dim: int) -> nn.Embedding:
    """An embedding without values: drawing them on the meta device costs torch a long import."""
    return nn.Embedding(rows, dim, _weight=torch.empty(rows, dim))


class CPMAnt(nn.Module):
    """The backbone: token ids to hidden states; `logits` is the tied head.

    Soft-prompt rows are addressed by ids from `vocab_size` upwards:
    vocab_size + prompt_type * prompt_length + row.

    A delta that needs all positions of the last layer sets `last_layer_at_targets` to False.
    """

    last_layer_at_targets = True
    streamed = False  # whether weights come and go (`cpm_tune.backbone.ant.streamed`)
    quantized = False  # whether linear weights are 8 bits (`cpm_tune.backbone.quantize`)

    def __init__(self, config: CPMAntConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.prompt_embedding = embedding(
            config.prompt_types * config.prompt_length, config.dim_model
        )
        self.segment_embedding = embedding(config.segment_types, config.dim_model)
        self.input_embedding = embedding(config.vocab_size, config.dim_model)
        self.position_bias = PositionBias(config)

    def embed(self, ids: Tensor, segment: Tensor) -> Tensor:
        """ids, segment (batch, length) int64 -> (batch, length, dim_model)."""
        vocab = self.config.vocab_size
        token = self.input_embedding(ids.clamp(max=vocab - 1))
        prompt = self.prompt_embedding((ids - vocab).clamp(min=0))
        x = torch.where((ids >= vocab)[..., None], prompt, token)
        return x + self.segment_embedding(segment)

    def forward(
        self,
        ids: Tensor,
        segment: Tensor,
        context: Tensor | None = None,
        span: Tensor | None = None,
        length: Tensor | None = None,
        *,
        bias: Tensor | SpanBias | None = None,
        caches: Sequence[KVCache] | None = None,
        lengths: Sequence[int] | None = None,
        targets: Tensor | None = None,
    ) -> Tensor:
        """Return hidden states (batch, length, dim_model).

        ids, segment: (batch, length) int64. context: bool, what all positions see (default: all).
        span: int64, keeps packed examples apart (default: one span per row); -1 is padding.
        length: (batch,) int64, positions from there on are padding (for rows that are not packed).
        caches: one per layer, for decoding: keys and values are added to them. If they contain any,
        `bias` (batch, heads, length, keys) says what is seen instead of the masks above.
        lengths: of packed sequences in the batch's one row, which padding may follow (instead of
        span and length): the same by a faster way. targets: int64 (targets,), positions of every
        row whose hidden states alone are returned, (batch, targets, dim_model), and are computed
        at the end.
        """
        if lengths is not None:
            bias = self._span_bias(ids, segment, context, lengths)
        if bias is None:
            bias = self._masked_bias(ids, segment, context, span, length)
        rows = None
        if targets is not None and self.last_layer_at_targets:
            rows = targets
            if has_values(targets):
                rows, targets = torch.unique(targets, return_inverse=True)
        hidden = self.encoder(self.embed(ids, segment), bias, caches, rows)
        return hidden if targets is None else hidden.index_select(1, targets)

    def _span_bias(
        self, ids: Tensor, segment: Tensor, context: Tensor | None, lengths: Sequence[int]
    ) -> SpanBias:
        """The bias of packed sequences; those with equal segments share the longest's.

        The order that makes this cheap: the longest first, equal ones adjacent.
        """
        whole: tuple[Tensor, Tensor] | None = None
        known = has_values(ids)
        plain = context is None or not known or bool(context.all())
        groups = []
        for start, n, length in runs(lengths):
            cut = slice(start, start + n * length)
            segments = segment[0, cut].view(n, length)
            if not known or bool((segments == segments[:1]).all()):
                segments = segments[:1]
            if whole is not None and (not known or torch.equal(segments, whole[0][:, :length])):
                bias = whole[1][:, :, :length, :length]
            else:
                bias = self.position_bias(segments)
                if whole is None and len(segments) == 1:
                    whole = segments, bias
            if not plain or (known and "hidden_pairs" in vars(self)):
                allowed = self._allowed(
                    ids[0, cut].view(n, length),
                    None if context is None else context[0, cut].view(n, length),
                    segment.new_zeros(n, length),
                )
                if bool((allowed == allowed[:1]).all()):
                    allowed = allowed[:1]
                bias = bias.masked_fill(~allowed[:, None], float("-inf"))
            groups.append(Group(n, length, bias))
        return SpanBias(tuple(groups))

    def _masked_bias(
        self,
        ids: Tensor,
        segment: Tensor,
        context: Tensor | None,
        span: Tensor | None,
        length: Tensor | None,
    ) -> Tensor:
        if span is None:
            span = torch.zeros_like(ids)
        if length is not None:
            padding = torch.arange(ids.shape[1], device=ids.device)[None, :] >= length[:, None]
            span = span.masked_fill(padding, -1)
        allowed = self._allowed(ids, context, span)
        return self.position_bias(segment).masked_fill(~allowed[:, None], float("-inf"))

    def _allowed(self, ids: Tensor, context: Tensor | None, span: Tensor) -> Tensor:
        """Which (query, key) pairs attend: bool (batch, length, length)."""
        if context is None:
            context = torch.ones_like(ids, dtype=torch.bool)
        allowed, hidden = attention_allowed(span, context), self.hidden_pairs(ids)
        return allowed if hidden is None else allowed & ~hidden

    def hidden_pairs(self, ids: Tensor) -> Tensor | None:
        """(query, key) pairs that a delta hides, bool (batch, length, length); None: no pair."""
        return None

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden (..., dim_model) -> (..., vocab_size), by the tied input embedding."""
        return linear(hidden, self.input_embedding.weight)

    @torch.no_grad()
    def init_weights(self, seed: int) -> CPMAnt:
        """Draw all weights at random, the same for a seed on every machine; returns self.

        Linear weights N(0, 1/fan_in), the two that write into the residual stream divided further
        by sqrt(2 * layers); embeddings N(0, 1/dim_model); position bias N(0, 0.02^2).
        """
        generator = torch.Generator().manual_seed(seed)
        depth = math.sqrt(2 * self.config.num_layers)
        for name, weight in self.named_parameters():
            shape = whole_shape(weight)
            if len(shape) == 1:
                fill(weight, torch.ones(shape))
                continue
            std = shape[1] ** -0.5
            if name.endswith("relative_attention_bias"):
                std = 0.02
            elif name.endswith(("attention_out.weight", "w_out.weight")):
                std /= depth
            fill(weight, torch.randn(shape, generator=generator).mul_(std))
        return self


def skeleton(config: CPMAntConfig) -> CPMAnt:
    """A backbone of that shape without values, on the meta device."""
    with torch.device("meta"):
        return CPMAnt(config)
