"""An encoder-decoder's cache: contexts are encoded once, and their keys for the decoder made once.

All beams of a context are queries of one row. They share the encoder's keys, and each sees, of the
decoder's, those of its own past; so nothing is copied when beams change their parents. Positions
are those within each beam's text, as in a row of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cpm_tune.backbone.encdec.layout import EncDecLayout
from cpm_tune.backbone.example import Ids
from cpm_tune.backbone.kv_cache import Cached, KVCache, moves
from cpm_tune.backbone.padded_batch import similar_rows


class LayerCache(KVCache):
    """One layer's keys and values: of what was generated, and of the encoder's hidden states."""

    _encoder: Cached | None = None

    def once(self, made: Callable[[], Cached]) -> Cached:
        """What was made by the first call."""
        if self._encoder is None:
            self._encoder = made()
        return self._encoder

    def keep(self, n: int, to: Tensor, source: Tensor) -> None:
        """As `KVCache.keep`, of both."""
        super().keep(n, to, source)
        if self._encoder is not None:
            for part in self._encoder:
                part[to] = part[source]
            self._encoder = self._encoder[0][:n], self._encoder[1][:n]


class EncDecCache:
    """`model` is an EncDec; as `cpm_tune.backbone.base.Cache`."""

    def __init__(
        self, model: Any, layout: EncDecLayout, contexts: Sequence[Ids], beams: int, slots: int
    ) -> None:
        self.model, self.beams = model, beams
        self.device = model.shared.weight.device
        texts = [layout.encoder_ids(context) for context in contexts]
        width = max(map(len, texts))
        pad = layout.tokenizer.pad
        ids = [[*text, *[pad] * (width - len(text))] for text in texts]
        self.ids = torch.tensor(ids, device=self.device)
        self.lengths = torch.tensor([len(text) for text in texts], device=self.device)
        self.first = layout.first, *layout.lead
        room = len(self.first) + slots
        self.layers = [LayerCache(room) for _ in model.decoder.block]
        self.memory: Any = None

    def start(self) -> Tensor:
        """Encode the contexts; return the logits after what every answer begins with: fp32 (rows,
        1, vocabulary)."""
        rows, width = self.ids.shape
        self.seen = torch.arange(width, device=self.device) < self.lengths[:, None]
        self.memory = self._encode()
        n = len(self.first)
        self.place = torch.arange(n, device=self.device)  # of each key
        relative = self.place - self.place[:, None]
        first = torch.tensor(self.first, device=self.device).expand(rows, n)
        self.past = torch.ones(rows, self.beams, n, dtype=torch.bool, device=self.device)
        hidden = self._decode(first, relative[None], (relative <= 0)[None])
        logits: Tensor = self.model.logits(hidden[:, -1:]).float()
        return logits

    def step(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """Feed every beam's new token: it sees what its parent saw, and itself.

        tokens, parents: int64 (rows, beams) -> the logits after each, fp32 (rows, beams,
        vocabulary).
        """
        rows, beams = tokens.shape
        past = self.past.gather(1, parents[..., None].expand(-1, -1, self.past.shape[2]))
        alone = torch.eye(beams, dtype=torch.bool, device=self.device).expand(rows, -1, -1)
        self.past = torch.cat((past, alone), 2)
        now = self.place[-1] + 1
        self.place = torch.cat((self.place, now.expand(beams)))
        relative = (self.place - now).expand(1, 1, -1)
        if self.model.sharded:  # processes pass both stacks together
            self.model.encode(self.ids[:1, :1], self.seen[:1, :1])
        logits: Tensor = self.model.logits(self._decode(tokens, relative, self.past)).float()
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order."""
        chosen = torch.tensor(rows, device=self.device)
        self.memory, self.seen, self.past = (
            part[chosen] for part in (self.memory, self.seen, self.past)
        )
        to, source = moves(rows, self.device)
        for layer in self.layers:
            layer.keep(len(rows), to, source)

    def _encode(self) -> Tensor:
        """The encoder's hidden states, of rows of similar length together."""
        order = self.lengths.argsort(descending=True, stable=True)
        ids, lengths, seen = self.ids[order], self.lengths[order], self.seen[order]
        groups = similar_rows(ids, lengths, together=self.model.sharded)
        parts = [
            self.model.encode(ids[first:end, :length], seen[first:end, :length])
            for first, end, length in groups
        ]
        width = self.ids.shape[1]
        padded = [torch.nn.functional.pad(p, (0, 0, 0, width - p.shape[1])) for p in parts]
        return torch.cat(padded)[order.argsort()]

    def _decode(self, ids: Tensor, relative: Tensor, allowed: Tensor) -> Tensor:
        hidden: Tensor = self.model.decode(
            ids, relative, allowed, self.memory, self.seen, self.layers
        )
        return hidden
