"""CPM-2's pre-training objective, span corruption, and beside it continuations: half of the rows
each.

Rows are documents end to end, each with <eod> after it. Spans: `cpm_tune.backbone.encdec.spans`. A
continuation is one span: the encoder reads a row up to some token and <s_0>, the decoder writes
<s_0>, what follows up to the document's end, and <s_1> there.
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

from cpm_tune.backbone.encdec.cpm2_tokenizer import CPM2Tokenizer
from cpm_tune.backbone.encdec.layout import EncDecLayout
from cpm_tune.backbone.encdec.model import EncDec
from cpm_tune.backbone.encdec.spans import draw_row, taken_out
from cpm_tune.backbone.example import Ids
from cpm_tune.backbone.pretraining import TrainingBatch
from cpm_tune.backbone.rows import EndToEnd

SPANS, CONTINUATION = 0, 1


def written_nats(
    model: EncDec, index: Tensor, token: Tensor, ids: Tensor, decoder_ids: Tensor, seen: Tensor
) -> Tensor:
    """Nats of every target: fp32 (targets,). ids int64, seen bool: (rows, width); decoder_ids:
    int64 (rows, decoder's width)."""
    memory = model.encode(ids, seen)
    place = torch.arange(decoder_ids.shape[1])
    relative = (place - place[:, None])[None]
    hidden = model.decode(decoder_ids, relative, relative <= 0, memory, seen)
    logits = model.logits(hidden.flatten(0, 1)[index])
    return F.cross_entropy(logits.float(), token, reduction="none")


@dataclass(frozen=True)
class Written:
    """What the encoder reads and the decoder writes, of which ids from `first` on are targets."""

    label: int
    reads: NDArray[np.int64]
    writes: NDArray[np.int64]
    first: int = 0


@dataclass(frozen=True)
class SpanObjective:
    """See `cpm_tune.backbone.pretraining.Objective`. The decoder has half the encoder's width; what
    does not fit is left out."""

    tokenizer: CPM2Tokenizer
    layout: EncDecLayout
    width: int
    end: int
    labels: tuple[str, ...] = ("spans", "continuation")
    losses = staticmethod(written_nats)

    @property
    def banned(self) -> frozenset[int]:
        return frozenset(self.tokenizer.never_written)

    @property
    def room(self) -> int:
        """The decoder's width."""
        return max(4, self.width // 2)

    def rows(self, tokens: NDArray[Any], offsets: NDArray[np.int64], seed: int) -> EndToEnd:
        """Documents end to end."""
        return EndToEnd.of(tokens, offsets, self.width, self.end, seed)

    def drawn(
        self,
        generator: np.random.Generator,
        row: Sequence[NDArray[np.int64]],
        label: int | None = None,
    ) -> Written:
        """Spans, or where a continuation begins."""
        ids = row[0][1:]  # the first one belongs to the row before
        text = np.flatnonzero(ids != self.end)
        if label is None:
            label = int(generator.integers(2))
        if label == SPANS or not len(text):
            spans = draw_row(generator, ids, self.end)
            return Written(SPANS, *taken_out(ids, spans, self.tokenizer.sentinels))
        cut = int(text[generator.integers(len(text))])
        stops = np.flatnonzero(ids[cut:] == self.end)
        whole = bool(len(stops))
        follows = ids[cut : cut + int(stops[0])] if whole else ids[cut:]
        return self._continued(ids[: min(cut, self.width - 1)], follows, whole)

    def predicting(self, given: Sequence[int], ids: Sequence[int]) -> Written:
        """As a continuation, without <s_0> among the targets."""
        before, after = (np.array(part, dtype=np.int64) for part in (given, ids))
        return self._continued(before[-(self.width - 1) :], after, True, first=1)

    def _continued(
        self, given: NDArray[np.int64], ids: NDArray[np.int64], whole: bool, first: int = 0
    ) -> Written:
        begin, end = ([sentinel] for sentinel in self.tokenizer.sentinels[:2])
        reads = np.concatenate((given, begin)).astype(np.int64)
        writes = np.concatenate((begin, ids, end if whole else [])).astype(np.int64)
        return Written(CONTINUATION, reads, writes, first)

    def batch(self, items: Sequence[tuple[int, Written]]) -> TrainingBatch:
        """Inputs: see `written_nats`."""
        ids = np.full((len(items), self.width), self.tokenizer.pad, dtype=np.int64)
        decoder_ids = np.full((len(items), self.room), self.tokenizer.pad, dtype=np.int64)
        index: list[NDArray[np.int64]] = []
        token: list[NDArray[np.int64]] = []
        n_tokens = 0
        for number, (_, item) in enumerate(items):
            writes = item.writes[: self.room]
            ids[number, : len(item.reads)] = item.reads
            decoder_ids[number, 0] = self.layout.first
            decoder_ids[number, 1 : len(writes)] = writes[:-1]
            index.append(np.arange(item.first, len(writes)) + number * self.room)
            token.append(writes[item.first :])
            n_tokens += len(item.reads) + len(writes)
        sizes = [len(part) for part in token]
        return TrainingBatch(
            inputs=(
                torch.from_numpy(ids),
                torch.from_numpy(decoder_ids),
                torch.from_numpy(ids != self.tokenizer.pad),
            ),
            index=torch.from_numpy(np.concatenate(index)),
            token=torch.from_numpy(np.concatenate(token)),
            objective=np.repeat([item.label for _, item in items], sizes),
            source=np.repeat([source for source, _ in items], sizes),
            n_tokens=n_tokens,
        )

    def context(self, ids: Sequence[int]) -> Ids:
        """The text alone; the layout puts the blank after it."""
        return tuple(ids)
