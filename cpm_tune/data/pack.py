"""Packs sequences into one row, the longest first, without padding.

Relative positions within each are the same as alone, and no position attends to another sequence:
packing changes no score beyond float rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpm_tune.data.encode import PROMPT_SEGMENT, Encoder
from cpm_tune.data.example import Example


@dataclass(frozen=True)
class Batch:
    """Sequences in one row and what is scored in them.

    ids, segment, span: int64 (1, tokens); context: bool (1, tokens). lengths: of the sequences, the
    longest first; span numbers them.
    target_index: int64 (targets,), into the row. target_token: int64 (targets,).
    target_candidate: int64 (targets,), which candidate a target counts for.
    candidates: int64 (examples, options), candidate numbers, -1 where an example has fewer.
    gold: int64 (examples,), the column of the right one, -1 if there is none.
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
    lengths: tuple[int, ...]

    def to(self, device: torch.device) -> Batch:
        """Copy to a device."""
        moved: dict[str, Any] = {
            k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)
        }
        return replace(self, **moved)


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
    order = sorted(
        ((e, s) for e, example in enumerate(examples) for s in range(len(example.sequences))),
        key=lambda item: -len(examples[item[0]].sequences[item[1]].ids),
    )
    sequences = [examples[e].sequences[s] for e, s in order]
    lengths = [len(sequence.ids) for sequence in sequences]
    ids = np.fromiter(chain.from_iterable(s.ids for s in sequences), np.int64, sum(lengths))
    segment = np.full_like(ids, encoder.encoding.segment)
    context = np.zeros_like(ids, dtype=bool)
    starts = [0, *accumulate(lengths)]
    for start, sequence in zip(starts, sequences, strict=False):
        segment[start : start + encoder.n_prompt] = PROMPT_SEGMENT
        context[start : start + sequence.n_context] = True
    offset = dict(zip(order, starts, strict=False))

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
        ids=torch.from_numpy(ids)[None],
        segment=torch.from_numpy(segment)[None],
        span=torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))[None],
        context=torch.from_numpy(context)[None],
        target_index=torch.tensor(index),
        target_token=torch.tensor(token),
        target_candidate=torch.tensor(owner),
        candidates=torch.from_numpy(table),
        gold=torch.tensor([example.gold for example in examples]),
        n_candidates=n_candidates,
        lengths=tuple(lengths),
    )
