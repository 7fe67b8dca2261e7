"""An encoder-decoder of T5's kind as a backbone: batches to logits.

Its network is our own, with transformers' names: position biases are computed once per pass, the
encoder runs once for a context however many answers follow it, and the head is never tied unless
the config says so (transformers 5 ties mT5's silently). Logits equal transformers' forward.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpm_tune.backbone.base import MOST_LOGITS, Backbone, Cache, PromptTable
from cpm_tune.backbone.encdec.batch import EncDecBatch, dummy_batch
from cpm_tune.backbone.encdec.cache import EncDecCache
from cpm_tune.backbone.encdec.config import EncDecConfig
from cpm_tune.backbone.encdec.layout import EncDecLayout
from cpm_tune.backbone.encdec.network import Kept, Stack
from cpm_tune.backbone.example import Ids
from cpm_tune.backbone.fused import linear
from cpm_tune.backbone.layers import Linear, embedding
from cpm_tune.backbone.padded_batch import similar_rows
from cpm_tune.backbone.storage.shards import fill, whole_shape

NEVER = float("-inf")


class EncDec(Backbone):
    """Encoder and decoder over one table of embeddings, and a head."""

    config: EncDecConfig
    hides_pairs = True

    def __init__(self, config: EncDecConfig) -> None:
        super().__init__()
        self.config = config
        self.shared = embedding(config.vocab_size, config.d_model)
        self.encoder, self.decoder = Stack(config, False), Stack(config, True)
        if not config.tied:
            self.lm_head = Linear(config.d_model, config.vocab_size)

    @property
    def layers(self) -> Sequence[nn.ModuleList]:
        return self.encoder.block, self.decoder.block

    def rate_of(self, name: str) -> float:
        """Queries begin, and move, as if attention were scaled. Otherwise they soon are as large as
        other weights, and each head looks at one token."""
        return self.config.d_kv**-0.5 if name.endswith("Attention.q.weight") else 1.0

    def tensors_in(self, arguments: Sequence[Any]) -> tuple[Tensor, ...]:
        return tuple(part for part in arguments if isinstance(part, Tensor))

    def with_tensors(self, arguments: Sequence[Any], tensors: Sequence[Tensor]) -> Sequence[Any]:
        given = iter(tensors)
        return [next(given) if isinstance(part, Tensor) else part for part in arguments]

    def encode(self, ids: Tensor, seen: Tensor) -> Tensor:
        """ids int64 (rows, length), seen bool (rows, length), False for padding -> the encoder's
        hidden states (rows, length, d_model)."""
        x = self.shared(ids)
        place = torch.arange(ids.shape[1], device=ids.device)
        bias = self.encoder.bias(place - place[:, None])[None].to(x.dtype)
        hidden = self.hidden_pairs(ids)
        allowed = seen[:, None] if hidden is None else seen[:, None] & ~hidden
        result: Tensor = self.encoder(x, bias.masked_fill(~allowed[:, None], NEVER))
        return result

    def decode(
        self,
        ids: Tensor,
        relative: Tensor,
        allowed: Tensor,
        memory: Tensor,
        seen: Tensor,
        kept: Sequence[Kept] = (),
    ) -> Tensor:
        """The decoder's hidden states (rows, length, d_model) of ids int64 (rows, length).

        relative int64 and allowed bool (rows or 1, length, keys): key's minus query's place, and
        whether it sees it. memory (rows, keys, d_model), seen (rows, keys): the encoder's.
        """
        x = F.embedding(ids, self.shared.weight)  # not as a module: soft prompts are the encoder's
        bias = self.decoder.bias(relative).to(x.dtype).masked_fill(~allowed[:, None], NEVER)
        cross = x.new_zeros(len(seen), 1, 1, seen.shape[1])
        cross = cross.masked_fill(~seen[:, None, None], NEVER)
        result: Tensor = self.decoder(x, bias, memory, cross, kept=kept)
        return result

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden (..., d_model) -> (..., vocabulary)."""
        if self.config.scaled:
            hidden = hidden * self.config.d_model**-0.5
        head = self.shared if self.config.tied else self.lm_head
        return linear(hidden, head.weight)

    def scores(self, batch: EncDecBatch, tokens: Tensor | None = None) -> Iterator[Tensor]:
        """The logits at the targets alone, see `Backbone.scores`."""
        hidden, most = self._hidden(batch), len(batch.target_row)
        if not torch.is_grad_enabled():
            most = max(1, MOST_LOGITS // self.config.vocab_size)
        for start in range(0, len(hidden), most):
            logits = self.logits(hidden[start : start + most])
            if tokens is not None:
                logits = logits.gather(1, tokens[start : start + most])
            yield logits.float()

    def _hidden(self, batch: EncDecBatch) -> Tensor:
        """The decoder's hidden states at the targets, (targets, d_model)."""
        groups = similar_rows(batch.ids, batch.lengths, together=self.sharded)
        if len(groups) == 1:
            return self._pass(batch, 0, len(batch.ids), batch.ids.shape[1])[
                batch.target_row, batch.target_place
            ]
        parts, order = list[Tensor](), list[Tensor]()
        for first, end, length in groups:
            row = batch.target_row
            (inside,) = ((row >= first) & (row < end)).nonzero(as_tuple=True)
            if len(inside):
                hidden = self._pass(batch, first, end, length)
                parts.append(hidden[row[inside] - first, batch.target_place[inside]])
                order.append(inside)
        return torch.cat(parts)[torch.cat(order).argsort()]

    def _pass(self, batch: EncDecBatch, first: int, end: int, length: int) -> Tensor:
        """The decoder's hidden states for some rows, whose contexts have at most `length` ids."""
        place = torch.arange(length, device=batch.ids.device)
        seen = place < batch.lengths[first:end, None]
        memory = self.encode(batch.ids[first:end, :length], seen)
        at, answer = batch.place[first:end], batch.answer[first:end]
        relative = at[:, None] - at[..., None]
        allowed = (answer[:, None] == answer[..., None]) & (relative <= 0)
        return self.decode(batch.decoder_ids[first:end], relative, allowed, memory, seen)

    def cache(
        self,
        layout: EncDecLayout,
        contexts: Sequence[Ids],
        beams: int,
        slots: int,
        blanks: Sequence[Sequence[int]] = (),
    ) -> Cache:
        return EncDecCache(self, layout, contexts, beams, slots)

    def dummy(self, tokens: Tensor, answer_tokens: int) -> EncDecBatch:
        return dummy_batch(tokens, answer_tokens)

    def prompt_table(self) -> PromptTable:
        """The encoder's embeddings; those of the decoder are looked up elsewhere."""
        rows = self.config.vocab_size
        return PromptTable(self.shared, rows, rows, 1.0, self.shared.weight)

    def widths(self, module: nn.Module) -> tuple[int, int] | None:
        sizes: tuple[int, int] | None = getattr(module, "widths", None) or super().widths(module)
        return sizes

    @torch.no_grad()
    def init_weights(self, seed: int) -> Self:
        """As T5 begins: queries are divided by the root of d_kv as well, because scores are not,
        and embeddings are N(0, 1); the head is drawn like other matrices."""
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            shape = whole_shape(weight)
            if len(shape) == 1:
                fill(weight, torch.ones(shape))
                continue
            std = shape[-1] ** -0.5 * self.rate_of(name)
            if name == "shared.weight":
                std = 1.0
            elif "relative_attention_bias" in name:
                std = self.config.d_model**-0.5
            fill(weight, torch.randn(shape, generator=generator).mul_(std))
        return self


def skeleton(config: EncDecConfig) -> EncDec:
    """A backbone of that shape without values, on the meta device."""
    with torch.device("meta"):
        return EncDec(config)
