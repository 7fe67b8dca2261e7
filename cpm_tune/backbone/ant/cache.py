"""CPM-Ant's cache: logits after contexts, then after each beam's newest token.

A context is context for all that follows, so its keys and values are computed once. All beams of a
context are queries of one row: they share its keys, and each sees, of the generated ones, those of
its own past. So nothing is copied when beams change their parents.

A blank is filled as pre-training's infilling predicts masked tokens: each sees all given tokens, on
both sides, and the generated ones before it. The hidden state before a token predicts it; if that
is a given one, it saw the given tokens alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cpm_tune.backbone.ant.layout import PROMPT_SEGMENT, AntLayout
from cpm_tune.backbone.example import Ids
from cpm_tune.backbone.fused import aligned
from cpm_tune.backbone.kv_cache import KVCache, moves

PADDING_ID, PADDING_SPAN = 0, -1


class AntCache:
    """One row per context, and after it the tokens of all its beams.

    Contexts are padded on the left: they all end at the same index. The beams' tokens of one step
    are adjacent and share an index; `seen` says which positions each beam sees. Masked positions of
    a context are seen by none; the tokens that fill them are cached after it too, and only
    their index says where they belong. All contexts have equally many masked positions.
    """

    def __init__(
        self,
        model: Any,
        layout: AntLayout,
        contexts: Sequence[Ids],
        beams: int,
        slots: int,
        blanks: Sequence[Sequence[int]] = (),
    ) -> None:
        """`model` is a CPMAnt; as `Backbone.cache`."""
        self.model = model
        device = model.input_embedding.weight.device
        width = max(map(len, contexts))
        capacity = width + slots
        shape = (len(contexts), width)
        ids = torch.full(shape, PADDING_ID)
        segment = torch.full((len(contexts), capacity), layout.segment)
        context = torch.zeros(shape, dtype=torch.bool)
        masked = torch.tensor(blanks or [()] * len(contexts), dtype=torch.long)
        for row, given in enumerate(contexts):
            start = width - len(given)
            masked[row] += start
            ids[row, start:] = torch.tensor(given)
            segment[row, : start + layout.n_prompt] = PROMPT_SEGMENT
            context[row, start:] = True
            context[row, masked[row]] = False
        step = torch.arange(slots) // beams
        following = masked[:, step] if masked.numel() else (width + step)[None]
        index = torch.cat((torch.arange(width).expand(len(following), -1), following), dim=1)
        self.ids, self.segment, self.index, self.masked, context = (
            tensor.to(device) for tensor in (ids, segment, index, masked, context)
        )
        self.span = torch.where(context, 0, PADDING_SPAN)
        self.seen = F.pad(context, (0, slots))[:, None].repeat(1, beams, 1)
        self.opens = context.gather(1, self.masked - 1)  # whether the token before each is given
        hidden = model.hidden_pairs(F.pad(self.ids, (0, 1), value=PADDING_ID))
        if hidden is not None:  # from the tokens to come
            self.seen[:, :, :width] &= ~hidden[:, -1:, :-1]
        self.caches = [KVCache(capacity) for _ in model.encoder.layers]
        self.filled, self.n_steps = width, 0

    def start(self) -> Tensor:
        """Encode the contexts; return the logits after each, or before its first masked position:
        fp32 (rows, 1, vocab)."""
        width = self.filled
        segment = self.segment[:, :width]
        if not self.masked.numel():
            last = torch.tensor([width - 1], device=self.ids.device)
            hidden = self.model(self.ids, segment, span=self.span, caches=self.caches, targets=last)
            return self.model.logits(hidden).float()
        hidden = self.model(self.ids, segment, span=self.span, caches=self.caches)
        before = (self.masked - 1)[..., None].expand(-1, -1, hidden.shape[2])
        self.before = hidden.gather(1, before)
        return self.model.logits(self.before[:, :1]).float()

    def step(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """Feed every beam's new token: it sees what its parent saw, and itself.

        tokens, parents: int64 (rows, beams) -> the logits after each, fp32 (rows, beams, vocab).
        """
        start, self.filled = self.filled, self.filled + tokens.shape[1]
        past = self.seen[:, :, :start]
        self.seen[:, :, :start] = past.gather(1, parents[..., None].expand_as(past))
        beam = torch.arange(tokens.shape[1], device=tokens.device)
        self.seen[:, beam, start + beam] = True
        segment = self.segment[:, : self.filled]
        bias = self.model.position_bias.last_row(segment, self.index[:, : self.filled])
        bias = aligned(bias.masked_fill(~self.seen[:, None, :, : self.filled], float("-inf")))
        hidden = self.model(tokens, segment[:, start:], bias=bias, caches=self.caches)
        self.n_steps += 1
        if self.masked.numel():  # the first token of another blank follows a given one
            given = self.before[:, self.n_steps, None]
            hidden = torch.where(self.opens[:, self.n_steps, None, None], given, hidden)
        return self.model.logits(hidden).float()

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order (as `remaining` returns it)."""
        chosen = torch.tensor(rows, device=self.seen.device)
        self.segment, self.seen = self.segment[chosen], self.seen[chosen]
        if self.masked.numel():
            self.index, self.masked = self.index[chosen], self.masked[chosen]
            self.before, self.opens = self.before[chosen], self.opens[chosen]
        to, source = moves(rows, chosen.device)
        for cache in self.caches:
            cache.keep(len(rows), to, source)
