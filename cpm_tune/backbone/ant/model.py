"""CPM-Ant as one plain torch module, with the original state-dict names.

Weights are folded: the original code divides by sqrt(fan-in) at run time, here (and in Hugging
Face's format) that factor is already in the weight, so that y = W x. A delta that adds to a
module's output, as OpenDelta's LoRA does, sees the same input and output either way. Original
checkpoints are folded once, when they are loaded (`cpm_tune.backbone.ant.checkpoint`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from cpm_tune.backbone.ant.cache import AntCache
from cpm_tune.backbone.ant.collate import AntBatch, dummy_batch
from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.layers import Encoder
from cpm_tune.backbone.ant.layout import AntLayout
from cpm_tune.backbone.ant.packing import EXACT, SIMILAR, Packing
from cpm_tune.backbone.ant.position import PositionBias, attention_allowed
from cpm_tune.backbone.ant.spans import SpanBias, parts_of, seen_within
from cpm_tune.backbone.base import MOST_LOGITS, Backbone, PromptTable
from cpm_tune.backbone.example import Ids
from cpm_tune.backbone.fused import aligned, linear
from cpm_tune.backbone.kv_cache import KVCache
from cpm_tune.backbone.layers import embedding
from cpm_tune.backbone.storage.shards import fill, whole_shape


class CPMAnt(Backbone):
    """The backbone: token ids to hidden states; `logits` is the tied head.

    Soft-prompt rows are addressed by ids from `vocab_size` upwards:
    vocab_size + prompt_type * prompt_length + row.

    A delta that needs all positions of the last layer sets `last_layer_at_targets` to False.
    """

    config: CPMAntConfig
    last_layer_at_targets = True
    hides_pairs = True

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
        packing: Packing | None = None,
        targets: Tensor | None = None,
    ) -> Tensor:
        """Return hidden states (batch, length, dim_model).

        ids, segment: (batch, length) int64. context: bool, what all positions see (default: all).
        span: int64, keeps packed examples apart (default: one span per row); -1 is padding.
        length: (batch,) int64, positions from there on are padding (for rows that are not packed).
        caches: one per layer, for decoding: keys and values are added to them. If they contain any,
        `bias` (batch, heads, length, keys) says what is seen instead of the masks above.
        packing: of sequences in the batch's one row (instead of span and length): the same by a
        faster way, at the packing's targets alone unless a delta needs all. targets: int64
        (targets,), positions of every row whose hidden states alone are returned, (batch, targets,
        dim_model), and are computed at the end.
        """
        if packing is not None:
            bias = self._span_bias(ids, packing)
            targets = packing.rows
        if bias is None:
            bias = self._masked_bias(ids, segment, context, span, length)
        rows = targets if self.last_layer_at_targets else None
        hidden = self.encoder(self.embed(ids, segment), bias, caches, rows)
        if targets is not None and rows is None:
            hidden = hidden.index_select(1, targets)
        return hidden if packing is None else hidden.index_select(1, packing.targets)

    def _span_bias(self, ids: Tensor, packing: Packing) -> SpanBias:
        """The bias of packed sequences; those with equal segments share the longest's."""
        biases = list[Tensor]()
        for part in packing.parts:
            length = part.length
            if part.segments is None:
                biases.append(biases[0][:, :, :length, :length])
            else:
                biases.append(self.position_bias(part.segments))
        hides = "hidden_pairs" in vars(self)
        each = parts_of(ids[0], packing) if hides else [None] * len(biases)
        for number, (part, own) in enumerate(zip(packing.parts, each, strict=True)):
            allowed = seen_within(part)
            if own is not None and (hidden := self.hidden_pairs(own)) is not None:
                allowed = ~hidden if allowed is None else allowed & ~hidden
            if allowed is not None:
                biases[number] = biases[number].masked_fill(~allowed[:, None], float("-inf"))
        return SpanBias(packing, tuple(biases))

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
        return aligned(self.position_bias(segment).masked_fill(~allowed[:, None], float("-inf")))

    def _allowed(self, ids: Tensor, context: Tensor | None, span: Tensor) -> Tensor:
        """Which (query, key) pairs attend: bool (batch, length, length)."""
        if context is None:
            context = torch.ones_like(ids, dtype=torch.bool)
        allowed, hidden = attention_allowed(span, context), self.hidden_pairs(ids)
        return allowed if hidden is None else allowed & ~hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden (..., dim_model) -> (..., vocab_size), by the tied input embedding."""
        return linear(hidden, self.input_embedding.weight)

    @property
    def layers(self) -> Sequence[nn.ModuleList]:
        return (self.encoder.layers,)

    def tensors_in(self, arguments: Sequence[Any]) -> tuple[Tensor, ...]:
        bias = arguments[0]
        return bias.biases if isinstance(bias, SpanBias) else (bias,)

    def with_tensors(self, arguments: Sequence[Any], tensors: Sequence[Tensor]) -> Sequence[Any]:
        bias, *others = arguments
        return (bias.of(tensors) if isinstance(bias, SpanBias) else tensors[0]), *others

    def scores(self, batch: AntBatch, tokens: Tensor | None = None) -> Iterator[Tensor]:
        """The logits at the targets alone, see `Backbone.scores`."""
        if batch.packing is None:
            half = self.input_embedding.weight.dtype != torch.float32
            batch = batch.packed(SIMILAR if half else EXACT)
        (hidden,) = self(batch.ids, batch.segment, batch.context, packing=batch.packing)
        if tokens is not None:
            words = self.input_embedding(tokens)
            yield (hidden.float()[:, None] * words.float()).sum(-1)
            return
        at_once = len(hidden)
        if not torch.is_grad_enabled():
            at_once = max(1, MOST_LOGITS // self.config.vocab_size)
        for part in torch.split(hidden, at_once):
            yield self.logits(part).float()

    def cache(
        self,
        layout: AntLayout,
        contexts: Sequence[Ids],
        beams: int,
        slots: int,
        blanks: Sequence[Sequence[int]] = (),
    ) -> AntCache:
        return AntCache(self, layout, contexts, beams, slots, blanks)

    def dummy(self, tokens: Tensor, answer_tokens: int) -> AntBatch:
        return dummy_batch(tokens, answer_tokens)

    def prompt_table(self) -> PromptTable:
        """The backbone's own soft prompts, after which trained ones have rows."""
        table, config = self.prompt_embedding, self.config
        return PromptTable(
            embedding=table,
            first=table.num_embeddings,
            first_free=config.vocab_size + table.num_embeddings,
            unscaled=math.sqrt(config.dim_model),
            tokens=self.input_embedding.weight,
            prompts=table.weight.view(config.prompt_types, config.prompt_length, -1),
        )

    def adds_input_of(self, module: str) -> None:
        if ".self_att" in module and not module.endswith((".self_attention", "project_q")):
            self.__dict__["last_layer_at_targets"] = False  # it begins at all positions

    def widths(self, module: nn.Module) -> tuple[int, int] | None:
        sizes: tuple[int, int] | None = getattr(module, "widths", None) or super().widths(module)
        return sizes

    @torch.no_grad()
    def init_weights(self, seed: int) -> Self:
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
