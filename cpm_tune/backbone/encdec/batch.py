"""Batches of an encoder-decoder: a row of the encoder per context, and beside it one of the decoder
with the answers one after the other, which do not see each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cpm_tune.backbone.base import Batch, dummy_fields, scored
from cpm_tune.backbone.encdec.layout import EncDecLayout, rows_of
from cpm_tune.backbone.example import Example
from cpm_tune.backbone.padded_batch import padded

PADDING = -1  # an answer's number where there is none


@dataclass(frozen=True)
class EncDecBatch(Batch):
    """ids: int64 (rows, length), the encoder's, padded on the right. lengths: int64 (rows,),
    falling. decoder_ids, place, answer: int64 (rows, decoder's length), an id, its place in its
    answer, the answer's number in its row. target_row, target_place: int64 (targets,)."""

    ids: Tensor
    lengths: Tensor
    decoder_ids: Tensor
    place: Tensor
    answer: Tensor
    target_row: Tensor
    target_place: Tensor


def collate(examples: Sequence[Example], layout: EncDecLayout) -> EncDecBatch:
    """One batch of whole examples."""
    rows = [(e, context, inputs) for e, x in enumerate(examples) for context, inputs in rows_of(x)]
    encoder = [torch.tensor(layout.encoder_ids(context)) for _, context, _ in rows]
    decoder, place, answer = list[Tensor](), list[Tensor](), list[Tensor]()
    order = sorted(range(len(rows)), key=lambda row: -len(encoder[row]))
    at: dict[tuple[int, int], tuple[int, int]] = {}  # of a candidate: its row, where it begins
    for row, number in enumerate(order):
        e, _, inputs = rows[number]
        ids, places, numbers = list[int](), list[int](), list[int]()
        for k, (given, candidates) in enumerate(inputs.items()):
            at |= {(e, candidate): (row, len(ids)) for candidate in candidates}
            ids += (layout.first, *given)
            places += range(len(given) + 1)
            numbers += [k] * (len(given) + 1)
        decoder.append(torch.tensor(ids, dtype=torch.int64))
        place.append(torch.tensor(places, dtype=torch.int64))
        answer.append(torch.tensor(numbers, dtype=torch.int64))
    targets = [
        (at[e, k][0], at[e, k][1] + i)
        for e, example in enumerate(examples)
        for k, candidate in enumerate(example.candidates)
        for i in range(len(candidate.ids))
    ]
    target_row, target_place = torch.tensor(targets, dtype=torch.int64).view(-1, 2).T
    pad = layout.tokenizer.pad
    return EncDecBatch(
        ids=padded([encoder[row] for row in order], pad),
        lengths=torch.tensor([len(encoder[row]) for row in order]),
        decoder_ids=padded(decoder, pad),
        place=padded(place, 0),
        answer=padded(answer, PADDING),
        target_row=target_row,
        target_place=target_place,
        **scored(examples),
    )


def dummy_batch(tokens: Tensor, answer_tokens: int) -> EncDecBatch:
    """As `Backbone.dummy`."""
    n, length = tokens.shape
    shape = n, answer_tokens
    return EncDecBatch(
        ids=tokens,
        lengths=torch.full((n,), length),
        decoder_ids=torch.zeros(shape, dtype=torch.int64),
        place=torch.arange(answer_tokens).expand(shape),
        answer=torch.zeros(shape, dtype=torch.int64),
        target_row=torch.arange(n).repeat_interleave(answer_tokens),
        target_place=torch.arange(answer_tokens).repeat(n),
        **dummy_fields(n, answer_tokens),
    )
