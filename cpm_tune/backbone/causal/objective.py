"""CPM-1's pre-training objective: the next token, over documents end to end.

Every document ends with <eod>, and what follows it is the next one: rows are cut anywhere, and a
prediction sees all tokens before it in its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cpm_tune.backbone.causal.cpm1_tokenizer import CPM1Tokenizer
from cpm_tune.backbone.causal.layout import CausalLayout
from cpm_tune.backbone.causal.model import CausalLM
from cpm_tune.backbone.example import Ids
from cpm_tune.backbone.pretraining import TrainingBatch
from cpm_tune.backbone.rows import EndToEnd


def next_token_nats(model: CausalLM, index: Tensor, token: Tensor, ids: Tensor) -> Tensor:
    """Nats of every target: fp32 (targets,); ids: int64 (rows, width)."""
    network = model.model
    hidden = network.base_model(input_ids=ids, use_cache=False).last_hidden_state
    logits = network.get_output_embeddings()(hidden.flatten(0, 1)[index])
    return F.cross_entropy(logits.float(), token, reduction="none")


@dataclass(frozen=True)
class Continuation:
    """Ids of a row, of which those from `first` on are predicted."""

    ids: NDArray[np.int64]
    first: int


@dataclass(frozen=True)
class CausalObjective:
    """See `cpm_tune.backbone.pretraining.Objective`."""

    tokenizer: CPM1Tokenizer
    layout: CausalLayout
    width: int
    labels: tuple[str, ...] = ("causal",)
    losses = staticmethod(next_token_nats)

    def rows(self, tokens: NDArray[Any], offsets: NDArray[np.int64], seed: int) -> EndToEnd:
        """Documents end to end."""
        return EndToEnd.of(tokens, offsets, self.width, self.tokenizer.eos, seed)

    def drawn(
        self,
        generator: np.random.Generator,
        row: Sequence[NDArray[np.int64]],
        label: int | None = None,
    ) -> Continuation:
        """All tokens of a row but the first, which belongs to the row before; nothing is drawn."""
        return Continuation(row[0], 1)

    def predicting(self, given: Sequence[int], ids: Sequence[int]) -> Continuation:
        """A text after <eod>; what does not fit into the row is left out."""
        end = self.tokenizer.eos
        whole = np.array([end, *given, *ids, end][: self.width + 1], dtype=np.int64)
        return Continuation(whole, len(given) + 1)

    def batch(self, items: Sequence[tuple[int, Continuation]]) -> TrainingBatch:
        """Input: ids (rows, width), padded on the right."""
        ids = np.full((len(items), self.width), self.tokenizer.pad, dtype=np.int64)
        index: list[NDArray[np.int64]] = []
        for number, (_, item) in enumerate(items):
            ids[number, : len(item.ids) - 1] = item.ids[:-1]
            index.append(np.arange(item.first - 1, len(item.ids) - 1) + number * self.width)
        sizes = [len(part) for part in index]
        source = np.repeat([source for source, _ in items], sizes)
        token = np.concatenate([item.ids[item.first :] for _, item in items])
        return TrainingBatch(
            inputs=(torch.from_numpy(ids),),
            index=torch.from_numpy(np.concatenate(index)),
            token=torch.from_numpy(token),
            objective=np.zeros_like(source),
            source=source,
            n_tokens=sum(len(item.ids) - 1 for _, item in items),
        )

    @property
    def end(self) -> int:
        return self.tokenizer.eos

    @property
    def banned(self) -> frozenset[int]:
        return frozenset(self.tokenizer.never_written)

    def context(self, ids: Sequence[int]) -> Ids:
        """The text after <eod>, where documents begin."""
        return (self.tokenizer.eos, *ids)
