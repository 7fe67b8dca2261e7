"""Batches of rows that are padded on the right (`cpm_tune.backbone.padded`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cpm_tune.backbone.base import Batch, dummy_fields, row_length, scored
from cpm_tune.backbone.example import Example
from cpm_tune.backbone.padded import sequences

_WORTH = 1024  # ids of a group of similar rows, to be one
_SIZES = 8  # lengths of rows from a power of two to the next


@dataclass(frozen=True)
class PaddedBatch(Batch):
    """ids: int64 (rows, length), padded on the right. lengths: int64 (rows,), falling.
    target_row, target_place: int64 (targets,), where each target is scored."""

    ids: Tensor
    lengths: Tensor
    target_row: Tensor
    target_place: Tensor


def collate(examples: Sequence[Example], pad: int) -> PaddedBatch:
    """One batch of whole examples."""
    rows = [(e, *s) for e, example in enumerate(examples) for s in sequences(example)]
    rows.sort(key=lambda row: -len(row[1]))
    row_of = {(e, k): r for r, (e, _, _, numbers) in enumerate(rows) for k in numbers}
    at = [
        (row_of[e, k], len(example.contexts[answer.context]) - 1 + i)
        for e, example in enumerate(examples)
        for k, answer in enumerate(example.candidates)
        for i in range(len(answer.ids))
    ]
    target_row, target_place = torch.tensor(at).T
    ids = [torch.tensor(ids) for _, ids, _, _ in rows]
    return PaddedBatch(
        ids=padded(ids, pad),
        lengths=torch.tensor([len(row) for row in ids]),
        target_row=target_row,
        target_place=target_place,
        **scored(examples),
    )


def padded(rows: Sequence[Tensor], value: int) -> Tensor:
    """Rows of ids, int64, under each other (rows, length), of a `row_length` that has room for
    each."""
    together = pad_sequence(list(rows), batch_first=True, padding_value=value)
    length = together.shape[1]
    return F.pad(together, (0, row_length(length, _SIZES) - length), value=value)


def dummy_batch(tokens: Tensor, answer_tokens: int) -> PaddedBatch:
    """As `Backbone.dummy`."""
    n, length = tokens.shape
    return PaddedBatch(
        ids=tokens,
        lengths=torch.full((n,), length),
        target_row=torch.arange(n).repeat_interleave(answer_tokens),
        target_place=torch.arange(length - answer_tokens, length).repeat(n),
        **dummy_fields(n, answer_tokens),
    )


def similar_rows(ids: Tensor, lengths: Tensor, *, together: bool) -> list[tuple[int, int, int]]:
    """Rows of similar length, as (first, end, length), of ids (rows, length) whose lengths fall.

    Nothing sees the padding, so this changes no logit. Groups have a power of two of rows and few
    lengths, for each shape is a new one to oneDNN (`row_length`). All rows are one group if they
    have to stay `together`, on a GPU, and without values.
    """
    n, widest = ids.shape
    if together or ids.device.type != "cpu" or not _has_values(lengths):
        return [(0, n, widest)]
    each = lengths.tolist()
    rows = 1 << (-(-_WORTH // widest) - 1).bit_length()
    return [
        (first, min(first + rows, n), min(row_length(each[first], _SIZES), widest))
        for first in range(0, n, rows)
    ]


def _has_values(tensor: Tensor) -> bool:
    return not (tensor.is_meta or type(tensor).__name__ == "FakeTensor")
