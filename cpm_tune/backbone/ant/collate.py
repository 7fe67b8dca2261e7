"""CPM-Ant's batches: sequences packed end to end into one row, the longest first.

Relative positions within each sequence are the same as alone, and no position attends to another
sequence: packing changes no score beyond float rounding. Padding at the end of the row alone rounds
its length up to one of a few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cpm_tune.backbone.ant.layout import PROMPT_SEGMENT, AntLayout
from cpm_tune.backbone.ant.packing import EXACT, FEW, Packing, pack
from cpm_tune.backbone.ant.spans import PADDING_SPAN
from cpm_tune.backbone.base import Batch, dummy_fields, row_length, scored
from cpm_tune.backbone.example import Example
from cpm_tune.backbone.padded import sequences


@dataclass(frozen=True)
class AntBatch(Batch):
    """Sequences in one row.

    ids, segment, span: int64 (1, row); context: bool (1, row). lengths: of the sequences, the
    longest first; span numbers them, and is -1 in the padding after them. target_index: int64
    (targets,), into the row: the position whose hidden state is scored for each target. packing:
    of the sequences, for attention.
    """

    ids: Tensor
    segment: Tensor
    span: Tensor
    context: Tensor
    target_index: Tensor
    lengths: tuple[int, ...]
    packing: Packing | None = None

    def packed(self, shortest: float) -> AntBatch:
        """With its `packing` (see `pack`): before it is moved to a device."""
        segment, context = self.segment[0].numpy(), self.context[0].numpy()
        packing = pack(self.lengths, segment, context, self.target_index.numpy(), shortest)
        return replace(self, packing=packing)

    def to(self, device: torch.device) -> AntBatch:
        if device.type != "cpu" and self.packing is None:
            return self.packed(FEW).to(device)
        return super().to(device)


def collate(examples: Sequence[Example], layout: AntLayout) -> AntBatch:
    """Pack whole examples, whose contexts begin with `layout.start`, into one batch."""
    order = [(e, *s) for e, example in enumerate(examples) for s in sequences(example)]
    order.sort(key=lambda item: -len(item[1]))
    lengths = [len(sequence) for _, sequence, _, _ in order]
    tokens = sum(lengths)
    row = row_length(tokens + 1)
    ids, span = np.zeros(row, np.int64), np.full(row, PADDING_SPAN)
    ids[:tokens] = np.fromiter(chain.from_iterable(s for _, s, _, _ in order), np.int64, tokens)
    span[:tokens] = np.repeat(np.arange(len(lengths)), lengths)
    segment = np.full_like(ids, layout.segment)
    context = np.zeros_like(ids, dtype=bool)
    last: dict[tuple[int, int], int] = {}  # (example, candidate) -> its context's last position
    starts = accumulate(lengths, initial=0)
    for start, (e, _, n_context, numbers) in zip(starts, order, strict=False):
        segment[start : start + layout.n_prompt] = PROMPT_SEGMENT
        context[start : start + n_context] = True
        last |= {(e, k): start + n_context - 1 for k in numbers}
    index = [
        last[e, k] + i
        for e, example in enumerate(examples)
        for k, answer in enumerate(example.candidates)
        for i in range(len(answer.ids))
    ]
    return AntBatch(
        ids=torch.from_numpy(ids)[None],
        segment=torch.from_numpy(segment)[None],
        span=torch.from_numpy(span)[None],
        context=torch.from_numpy(context)[None],
        target_index=torch.tensor(index),
        lengths=tuple(lengths),
        **scored(examples),
    )


def dummy_batch(tokens: Tensor, answer_tokens: int) -> AntBatch:
    """A batch of sequences (sequences, length) without meaning, all context; the last
    `answer_tokens` positions of each are scored, for token 0."""
    n, length = tokens.shape
    ends = np.arange(1, n + 1)[:, None] * length - np.arange(answer_tokens, 0, -1)
    row = row_length(n * length + 1)
    padding = (0, row - n * length)
    segment, context = np.zeros(row, np.int64), np.ones(row, dtype=bool)
    lengths = (length,) * n
    return AntBatch(
        ids=F.pad(tokens.flatten(), padding)[None],
        segment=torch.from_numpy(segment)[None],
        span=F.pad(torch.arange(n).repeat_interleave(length), padding, value=PADDING_SPAN)[None],
        context=torch.from_numpy(context)[None],
        target_index=torch.from_numpy(ends.ravel()),
        lengths=lengths,
        packing=pack(lengths, segment, context, ends.ravel(), EXACT),
        **dummy_fields(n, answer_tokens),
    )
