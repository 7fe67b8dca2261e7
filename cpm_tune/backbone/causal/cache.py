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
import torch.nn.functional as F
from torch import Tensor

from cpm_tune.backbone.causal.hf import DynamicLayer
from cpm_tune.backbone.example import Ids
from cpm_tune.backbone.kv_cache import Cached, KVCache, moves


class Room(DynamicLayer):  # type: ignore[misc]
    """A layer of transformers' cache that has read its contexts, with memory for `slots` more."""

    def __init__(self, layer: Any, slots: int) -> None:
        super().__init__()
        self._kept = KVCache(layer.get_seq_length() + slots)
        self.lazy_initialization(layer.keys, layer.values)
        self.update(layer.keys, layer.values)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Cached:
        """As transformers' layers: what is new is added; all there is comes back."""
        self.keys, self.values = self._kept.append(key_states, value_states)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """As transformers' layers: row i becomes what row `beam_idx[i]` was."""
        self._kept.choose(beam_idx)
        self.keys, self.values = self._kept.all()

    def keep(self, n: int, to: Tensor, source: Tensor) -> None:
        """As `KVCache.keep`."""
        self._kept.keep(n, to, source)
        self.keys, self.values = self._kept.all()


class CausalCache:
    """`model` is a CausalLM; as `cpm_tune.backbone.base.Cache`. A row has room for `room` tokens
    after its context. `seen`: int64 (rows, keys), 0 for padding."""

    def __init__(self, model: Any, contexts: Sequence[Ids], pad: int, room: int) -> None:
        self.model, self.beams, self.room = model, 1, room
        self.past: Any = None
        self.device = next(model.parameters()).device
        self.filled = width = max(map(len, contexts))
        ids = [[pad] * (width - len(given)) + list(given) for given in contexts]
        self.ids = torch.tensor(ids, device=self.device)
        self.lengths = torch.tensor([len(given) for given in contexts], device=self.device)
        self.padded = any(len(given) < width for given in contexts)
        place = torch.arange(width, device=self.device) - (width - self.lengths)[:, None]
        self.seen = F.pad((place >= 0).long(), (0, room), value=1)
        self.places = place.clamp(min=0)

    def start(self) -> Tensor:
        """Encode the contexts; return the logits after each: fp32 (rows, 1, vocabulary)."""
        mask = self.seen[:, : self.filled] if self.padded else None
        logits = self._read(self.ids, self.places, mask)
        layers = getattr(self.past, "layers", [])
        for number, layer in enumerate(layers):
            if type(layer) is DynamicLayer and layer.get_seq_length():
                layers[number] = Room(layer, self.room)
        return logits

    def step(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """Feed every beam's new token after its parent.

        tokens, parents: int64 (rows, beams) -> the logits after each, fp32 (rows, beams, vocab).
        """
        rows, beams = tokens.shape
        if beams > 1:  # a single one is its own parent
            first = torch.arange(rows, device=self.device)[:, None] * self.beams
            self._choose((first + parents).flatten())
        self.beams = beams
        self.filled += 1
        mask = self.seen[:, : self.filled] if self.padded else None
        logits = self._read(tokens.reshape(-1, 1), self.lengths[:, None], mask)
        self.lengths = self.lengths + 1
        return logits.view(rows, beams, -1)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order."""
        first = torch.tensor(rows, device=self.device)[:, None] * self.beams
        self._choose((first + torch.arange(self.beams, device=self.device)).flatten())

    def _read(self, ids: Tensor, places: Tensor, mask: Tensor | None, last: int = 1) -> Tensor:
        logits: Tensor
        logits, self.past = self.model.following(
            ids, self.past, last, attention_mask=mask, position_ids=places
        )
        return logits

    def _choose(self, index: Tensor) -> None:
        """Row i becomes what row `index[i]` was."""
        self.past.reorder_cache(index)
        self.seen, self.lengths = self.seen[index], self.lengths[index]


class SharedCache(CausalCache):
    """All beams of a text in one row. `seen`: bool (rows, beams, keys), what is before a beam."""

    def __init__(
        self, model: Any, contexts: Sequence[Ids], pad: int, room: int, beams: int
    ) -> None:
        super().__init__(model, contexts, pad, room)
        self.beams = beams

    def start(self) -> Tensor:
        """As `CausalCache.start`."""
        logits = super().start()
        self.seen = self.seen[:, None].bool().repeat(1, self.beams, 1)
        if self.beams > 1:  # each step's tokens: those of its own past alone
            self.seen[:, :, self.filled :] = False
        return logits

    def step(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """As `CausalCache.step`."""
        beams, start = self.beams, self.filled
        self.filled += beams
        if beams > 1:
            past = self.seen[:, :, :start]
            past.copy_(past.gather(1, parents[..., None].expand_as(past)))
            beam = torch.arange(beams, device=self.device)
            self.seen[:, beam, start + beam] = True
        masked = self.padded or beams > 1
        mask = self.seen[:, None, :, : self.filled] if masked else None
        places = self.lengths[:, None].expand_as(tokens)
        self.lengths = self.lengths + 1
        return self._read(tokens, places, mask, beams)

    def keep(self, rows: Sequence[int]) -> None:
        """As `CausalCache.keep`."""
        chosen = torch.tensor(rows, device=self.device)
        self.seen, self.lengths = self.seen[chosen], self.lengths[chosen]
        to, source = moves(rows, self.device)
        for layer in self.past.layers:
            layer.keep(len(rows), to, source)
