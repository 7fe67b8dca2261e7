"""CPM-Ant's batches: contexts and answers become sequences, packed end to end into one row.

A sequence is a context and all but the last token of an answer to it; the hidden state before each
of the answer's tokens is scored for that token. Answers of one token share their context's
sequence. The longest sequence is first. Relative positions within each are the same as alone, and
no position attends to another sequence: packing changes no score beyond float rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpm_tune.backbone.ant.frame import PROMPT_SEGMENT, Frame
from cpm_tune.backbone.ant.spans import PADDING_SPAN
from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.backbone.example import Example, Ids


@dataclass(frozen=True)
class Batch:
    """Sequences in one row and what is scored in them.

    ids, segment, span: int64 (1, row); context: bool (1, row). lengths: of the sequences, the
    longest first; span numbers them, and is -1 in the padding after them.
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


@dataclass(frozen=True, slots=True)
class _Sequence:
    """Ids whose first `n_context` are visible to all others; the candidates scored in them."""

    ids: Ids
    n_context: int
    candidates: Sequence[int]


def _sequences(example: Example) -> Iterator[_Sequence]:
    """The sequences of an example, in the order of its contexts and candidates."""
    answers: list[list[int]] = [[] for _ in example.contexts]
    for number, answer in enumerate(example.candidates):
        answers[answer.context].append(number)
    for context, numbers in zip(example.contexts, answers, strict=True):
        if all(len(example.candidates[number].ids) == 1 for number in numbers):
            yield _Sequence(context, len(context), numbers)
            continue
        for number in numbers:
            ids = context + example.candidates[number].ids[:-1]
            yield _Sequence(ids, len(context), (number,))


def row_length(tokens: int) -> int:
    """The length of a row of that many tokens: one of 16 from a power of two to the next.

    For every new shape of a product, oneDNN spends a few milliseconds and keeps a small block of
    memory, behind which the heap cannot use again what the step has freed.
    """
    step = 1 << max(0, (tokens - 1).bit_length() - 5)
    return -(-tokens // step) * step


def n_tokens(example: Example) -> int:
    """The tokens of an example in a batch: the length of its sequences together."""
    return sum(len(sequence.ids) for sequence in _sequences(example))


def micro_batches(examples: Iterable[Example], tokens: int) -> Iterator[list[Example]]:
    """Cut a run of examples into groups of at most `tokens` tokens (at least one example each)."""
    group: list[Example] = []
    size = 0
    for example in examples:
        added = n_tokens(example)
        if group and size + added > tokens:
            yield group
            group, size = [], 0
        group.append(example)
        size += added
    if group:
        yield group


def collate(examples: Sequence[Example], frame: Frame) -> Batch:
    """Pack whole examples, whose contexts begin with `frame.start`, into one batch."""
    order = [(e, s) for e, example in enumerate(examples) for s in _sequences(example)]
    order.sort(key=lambda item: -len(item[1].ids))
    lengths = [len(sequence.ids) for _, sequence in order]
    tokens = sum(lengths)
    row = row_length(tokens)
    ids, span = np.zeros(row, np.int64), np.full(row, PADDING_SPAN)
    ids[:tokens] = np.fromiter(chain.from_iterable(s.ids for _, s in order), np.int64, tokens)
    span[:tokens] = np.repeat(np.arange(len(lengths)), lengths)
    segment = np.full_like(ids, frame.segment)
    context = np.zeros_like(ids, dtype=bool)
    last: dict[tuple[int, int], int] = {}  # (example, candidate) -> its context's last position
    for start, (e, sequence) in zip(accumulate(lengths, initial=0), order, strict=False):
        segment[start : start + frame.n_prompt] = PROMPT_SEGMENT
        context[start : start + sequence.n_context] = True
        last |= {(e, k): start + sequence.n_context - 1 for k in sequence.candidates}

    index: list[int] = []
    token: list[int] = []
    owner: list[int] = []
    n_options = max(len(example.candidates) for example in examples)
    table = np.full((len(examples), n_options), -1, dtype=np.int64)
    n_candidates = 0
    for e, example in enumerate(examples):
        for k, answer in enumerate(example.candidates):
            table[e, k] = n_candidates
            index += range(last[e, k], last[e, k] + len(answer.ids))
            token += answer.ids
            owner += [n_candidates] * len(answer.ids)
            n_candidates += 1
    return Batch(
        ids=torch.from_numpy(ids)[None],
        segment=torch.from_numpy(segment)[None],
        span=torch.from_numpy(span)[None],
        context=torch.from_numpy(context)[None],
        target_index=torch.tensor(index),
        target_token=torch.tensor(token),
        target_candidate=torch.tensor(owner),
        candidates=torch.from_numpy(table),
        gold=torch.tensor([example.gold for example in examples]),
        n_candidates=n_candidates,
        lengths=tuple(lengths),
    )


def blank_batch(sequences: int, length: int, answer_tokens: int) -> Batch:
    """A batch of `sequences` of `length` tokens without values, to measure memory. Of each
    `answer_tokens` are scored (0: an option's word)."""
    grid = torch.zeros(1, row_length(sequences * length), dtype=torch.int64)
    targets = torch.zeros(sequences * (answer_tokens or 1), dtype=torch.int64)
    return Batch(
        ids=grid,
        segment=torch.zeros_like(grid),
        span=torch.zeros_like(grid),
        context=torch.zeros_like(grid, dtype=torch.bool),
        target_index=targets,
        target_token=targets.clone(),
        target_candidate=targets.clone(),
        candidates=torch.zeros(sequences, 1, dtype=torch.int64),
        gold=torch.zeros(sequences, dtype=torch.int64),
        n_candidates=sequences,
        lengths=(length,) * sequences,
    )


def describe(example: Example, frame: Frame, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The text tokens and the scored positions of each sequence, for people to read."""
    rows, entries = [], tokenizer.entries
    for sequence in _sequences(example):
        targets = [
            (position, entries[token])
            for k in sequence.candidates
            for position, token in enumerate(example.candidates[k].ids, sequence.n_context - 1)
        ]
        text = [entries.get(i, "<soft>") for i in sequence.ids[frame.n_prompt :]]
        rows.append({"tokens": text, "targets": targets, "length": len(sequence.ids)})
    return rows
