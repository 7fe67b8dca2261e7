"""The backbone with its cache: logits behind prefixes, then behind each beam's newest token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cpm_tune.backbone.model import CPMAnt, KVCache
from cpm_tune.data.encode import PROMPT_SEGMENT
from cpm_tune.decode.search import NEVER, Request

PADDING_ID, PADDING_SPAN = 0, -1


class CachedRows:
    """One row a prefix, and behind it the tokens of all its beams.

    Prefixes are padded on the left: they all end at the same index. The beams' tokens of one step
    lie side by side and share an index; `seen` says which slots each beam sees.
    """

    def __init__(
        self, model: CPMAnt, prefixes: Sequence[tuple[int, ...]], request: Request
    ) -> None:
        self.model = model
        device, beams = model.input_embedding.weight.device, request.settings.beams
        width = max(map(len, prefixes))
        slots = width + request.slots
        ids = torch.full((len(prefixes), width), PADDING_ID)
        segment = torch.full((len(prefixes), slots), request.segment)
        seen = torch.zeros(len(prefixes), beams, slots, dtype=torch.bool)
        for row, prefix in enumerate(prefixes):
            start = width - len(prefix)
            ids[row, start:] = torch.tensor(prefix)
            segment[row, : start + request.n_prompt] = PROMPT_SEGMENT
            seen[row, :, start:width] = True
        index = torch.cat((torch.arange(width), width + torch.arange(request.slots) // beams))
        self.ids, self.segment, self.seen, self.index = (
            tensor.to(device) for tensor in (ids, segment, seen, index)
        )
        self.span = torch.where(self.seen[:, 0, :width], 0, PADDING_SPAN)
        hidden = model.hidden_pairs(F.pad(self.ids, (0, 1), value=PADDING_ID))
        if hidden is not None:  # from the tokens to come
            self.seen[:, :, :width] &= ~hidden[:, -1:, :-1]
        self.caches = [KVCache(slots) for _ in model.encoder.layers]
        self.filled = width

    def encode(self) -> Tensor:
        """Encode the prefixes; return the logits behind each, fp32 (rows, 1, vocab)."""
        width = self.filled
        last = torch.tensor([width - 1], device=self.ids.device)
        segment = self.segment[:, :width]
        hidden = self.model(self.ids, segment, span=self.span, caches=self.caches, targets=last)
        return self.model.logits(hidden).float()

    def step(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """Feed every beam's new token: it sees what its parent saw, and itself.

        tokens, parents: int64 (rows, beams) -> the logits behind each, fp32 (rows, beams, vocab).
        """
        start, self.filled = self.filled, self.filled + tokens.shape[1]
        past = self.seen[:, :, :start]
        self.seen[:, :, :start] = past.gather(1, parents[..., None].expand_as(past))
        beam = torch.arange(tokens.shape[1], device=tokens.device)
        self.seen[:, beam, start + beam] = True
        segment = self.segment[:, : self.filled]
        bias = self.model.position_bias.last_row(segment, self.index[: self.filled])
        bias = bias.masked_fill(~self.seen[:, None, :, : self.filled], NEVER)
        hidden = self.model(tokens, segment[:, start:], bias=bias, caches=self.caches)
        return self.model.logits(hidden).float()

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order (as `remaining` gives it)."""
        chosen = torch.tensor(rows, device=self.seen.device)
        self.segment, self.seen = self.segment[chosen], self.seen[chosen]
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
