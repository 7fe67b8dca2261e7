"""Keys and values of contexts and of what was generated after them, kept by transformers' cache.

Contexts are padded on the left, so that all go on at one index; padding is masked, and positions
are those of each context alone. The beams of a text share its row: a mask says which tokens are
before each of them, and nothing is copied if beams change parents. For models whose attention
takes no such mask (`CausalLM.shares_prefixes`), every beam has a row of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cpm_tune.backbone.example import Ids


class CausalCache:
    """`model` is a CausalLM; as `cpm_tune.backbone.base.Cache`."""

    def __init__(self, model: Any, contexts: Sequence[Ids], pad: int) -> None:
        self.model, self.beams = model, 1
        self.past: Any = None
        device = next(model.parameters()).device
        width = max(map(len, contexts))
        ids = [[pad] * (width - len(given)) + list(given) for given in contexts]
        self.ids = torch.tensor(ids, device=device)
        self.lengths = torch.tensor([len(given) for given in contexts], device=device)
        self.padded = any(len(given) < width for given in contexts)
        place = torch.arange(width, device=device) - (width - self.lengths)[:, None]
        self.seen = (place >= 0).long()
        self.places = place.clamp(min=0)

    def start(self) -> Tensor:
        """Encode the contexts; return the logits after each: fp32 (rows, 1, vocabulary)."""
        return self._read(self.ids, self.places, self.seen if self.padded else None)

    def step(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """Feed every beam's new token after its parent.

        tokens, parents: int64 (rows, beams) -> the logits after each, fp32 (rows, beams, vocab).
        """
        rows, beams = tokens.shape
        first = torch.arange(rows, device=parents.device)[:, None] * self.beams
        self._choose((first + parents).flatten())
        self.beams = beams
        self.seen = torch.cat((self.seen, self.seen.new_ones(rows * beams, 1)), 1)
        mask = self.seen if self.padded else None
        logits = self._read(tokens.reshape(-1, 1), self.lengths[:, None], mask)
        self.lengths = self.lengths + 1
        return logits.view(rows, beams, -1)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order."""
        first = torch.tensor(rows, device=self.seen.device)[:, None] * self.beams
        self._choose((first + torch.arange(self.beams, device=first.device)).flatten())

    def _read(self, ids: Tensor, places: Tensor, mask: Tensor | None, last: int = 1) -> Tensor:
        logits: Tensor
        logits, self.past = self.model.following(
            ids, self.past, last, attention_mask=mask, position_ids=places
        )
        return logits

    def _choose(self, index: Tensor) -> None:
        """Row i becomes what row `index[i]` was."""
        same = torch.arange(len(self.seen), device=index.device)
        if len(index) == len(same) and torch.equal(index, same):
            return
        self.past.reorder_cache(index)
        self.seen, self.lengths = self.seen[index], self.lengths[index]


class SharedCache(CausalCache):
    """All beams of a text in one row. `seen`: bool (rows, beams, keys), what is before a beam."""

    def start(self) -> Tensor:
        """As `CausalCache.start`."""
        logits = super().start()
        self.seen = self.seen[:, None].bool()
        return logits

    def step(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """As `CausalCache.step`."""
        rows, beams = tokens.shape
        before = self.seen[torch.arange(rows, device=parents.device)[:, None], parents]
        itself = torch.eye(beams, dtype=torch.bool, device=parents.device).expand(rows, -1, -1)
        self.seen = torch.cat((before, itself), 2)
        places = self.lengths[:, None].expand(rows, beams)
        mask = self.seen[:, None] if beams > 1 or self.padded else None
        self.lengths = self.lengths + 1
        return self._read(tokens, places, mask, beams)

    def keep(self, rows: Sequence[int]) -> None:
        """As `CausalCache.keep`."""
        self._choose(torch.tensor(rows, device=self.seen.device))
