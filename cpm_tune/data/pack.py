"""Packs sequences into rows of one width; span numbers keep the examples of a row apart.

A row holds sequences one after the other, so relative positions within each are what they would be
alone; no position attends across spans. Packing changes no score beyond float rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cpm_tune.data.encode import PROMPT_SEGMENT, Encoder, Example

ROW_WIDTH = 256
PADDING_SPAN = -1


@dataclass(frozen=True)
class Batch:
    """Packed rows and what is scored in them.

    ids, segment, span: int64 (rows, width); context: bool (rows, width).
    target_index: int64 (targets,), into the flattened rows. target_token: int64 (targets,).
    target_candidate: int64 (targets,), which candidate a target counts for.
    candidates: int64 (examples, options), candidate numbers, -1 where an example has fewer.
    gold: int64 (examples,), the column of the right one.
    """

    ids: Tensor
    segment: Tensor
    span: Tensor
    context: Tensor
    target_index: Tensor
    target_token: Tensor
    target_candidate: Tensor
    candidates: Tensor
    gold: Tensor
    n_candidates: int

    def to(self, device: torch.device) -> Batch:
        """Copy to a device."""
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return Batch(**moved, n_candidates=self.n_candidates)


def pack_rows(lengths: Sequence[int], width: int) -> list[list[int]]:
    """First-fit decreasing: return rows of item numbers, each row's lengths summing to <= width.

    Ties keep their order, so the result depends on nothing but the lengths.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        for row, free in enumerate(room):
            if lengths[item] <= free:
                rows[row].append(item)
                room[row] -= lengths[item]
                break
        else:
            rows.append([item])
            room.append(width - lengths[item])
    return rows


def micro_batches(examples: Iterable[Example], tokens: int) -> Iterator[list[Example]]:
    """Cut a run of examples into groups of at most `tokens` tokens (at least one example each)."""
    group: list[Example] = []
    size = 0
    for example in examples:
        if group and size + example.n_tokens > tokens:
            yield group
            group, size = [], 0
        group.append(example)
        size += example.n_tokens
    if group:
        yield group


def pack(examples: Sequence[Example], encoder: Encoder) -> Batch:
    """Pack whole examples into one batch."""
    flat = [(e, s) for e, example in enumerate(examples) for s in range(len(example.sequences))]
    lengths = [len(examples[e].sequences[s].ids) for e, s in flat]
    rows = pack_rows(lengths, max(ROW_WIDTH, *lengths))
    width = max(sum(lengths[item] for item in row) for row in rows)
    ids = np.full((len(rows), width), encoder.tokenizer.pad, dtype=np.int64)
    segment = np.full_like(ids, PROMPT_SEGMENT)
    span = np.full_like(ids, PADDING_SPAN)
    context = np.zeros_like(ids, dtype=bool)
    offset: dict[tuple[int, int], int] = {}
    for r, row in enumerate(rows):
        start = 0
        for number, item in enumerate(row):
            e, s = flat[item]
            sequence = examples[e].sequences[s]
            end = start + len(sequence.ids)
            ids[r, start:end] = sequence.ids
            segment[r, start + encoder.n_prompt : end] = encoder.encoding.segment
            span[r, start:end] = number
            context[r, start : start + sequence.n_context] = True
            offset[e, s] = r * width + start
            start = end

    index: list[int] = []
    token: list[int] = []
    owner: list[int] = []
    n_options = max(len(example.candidates) for example in examples)
    table = np.full((len(examples), n_options), -1, dtype=np.int64)
    n_candidates = 0
    for e, example in enumerate(examples):
        for k, targets in enumerate(example.candidates):
            table[e, k] = n_candidates
            for target in targets:
                index.append(offset[e, target.sequence] + target.position)
                token.append(target.token)
                owner.append(n_candidates)
            n_candidates += 1
    return Batch(
        ids=torch.from_numpy(ids),
        segment=torch.from_numpy(segment),
        span=torch.from_numpy(span),
        context=torch.from_numpy(context),
        target_index=torch.tensor(index),
        target_token=torch.tensor(token),
        target_candidate=torch.tensor(owner),
        candidates=torch.from_numpy(table),
        gold=torch.tensor([example.gold for example in examples]),
        n_candidates=n_candidates,
    )
