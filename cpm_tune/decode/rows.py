"""The backbone with its cache: logits after prefixes, then after each beam's newest token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cpm_tune.backbone.ant.frame import PROMPT_SEGMENT
from cpm_tune.backbone.ant.model import CPMAnt, KVCache
from cpm_tune.decode.search import NEVER, Request, Search

PADDING_ID, PADDING_SPAN = 0, -1


class CachedRows:
    """One row per search: its prefix, and after it the tokens of all its beams.

    Prefixes are padded on the left: they all end at the same index. The beams' tokens of one step
    are adjacent and share an index; `seen` says which positions each beam sees. Masked positions of
    the prefix are seen by none; the tokens that fill them are cached after the prefix too, and only
    their index says where they belong. All searches have equally many masked positions.
    """

    def __init__(self, model: CPMAnt, searches: Sequence[Search], request: Request) -> None:
        self.model = model
        device, beams = model.input_embedding.weight.device, request.settings.beams
        width = max(len(search.prefix) for search in searches)
        capacity = width + request.positions
        shape = (len(searches), width)
        ids = torch.full(shape, PADDING_ID)
        segment = torch.full((len(searches), capacity), request.segment)
        context = torch.zeros(shape, dtype=torch.bool)
        masked = torch.tensor([search.masked for search in searches], dtype=torch.long)
        for row, search in enumerate(searches):
            start = width - len(search.prefix)
            masked[row] += start
            ids[row, start:] = torch.tensor(search.prefix)
            segment[row, : start + request.n_prompt] = PROMPT_SEGMENT
            context[row, start:] = True
            context[row, masked[row]] = False
        step = torch.arange(request.positions) // beams
        following = masked[:, step] if masked.numel() else (width + step)[None]
        index = torch.cat((torch.arange(width).expand(len(following), -1), following), dim=1)
        self.ids, self.segment, self.index, self.masked, context = (
            tensor.to(device) for tensor in (ids, segment, index, masked, context)
        )
        self.span = torch.where(context, 0, PADDING_SPAN)
        self.seen = F.pad(context, (0, request.positions))[:, None].repeat(1, beams, 1)
        self.opens = context.gather(1, self.masked - 1)  # whether the token before each is given
        hidden = model.hidden_pairs(F.pad(self.ids, (0, 1), value=PADDING_ID))
        if hidden is not None:  # from the tokens to come
            self.seen[:, :, :width] &= ~hidden[:, -1:, :-1]
        self.caches = [KVCache(capacity) for _ in model.encoder.layers]
        self.filled, self.n_steps = width, 0

    def encode(self) -> Tensor:
        """Encode the prefixes; return the logits after each, or before its first masked position:
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
        bias = bias.masked_fill(~self.seen[:, None, :, : self.filled], NEVER)
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
        for cache in self.caches:
            cache.keep(chosen)


def remaining(alive: Sequence[bool]) -> list[int]:
    """Numbers of the rows that are alive, each gap filled by the last one, so that few move."""
    rows = list(range(len(alive)))
    for row in reversed(range(len(alive))):
        if not alive[row]:
            last = rows.pop()
            if row < len(rows):
                rows[row] = last
    return rows
