"""Batches of rows that are padded on the right (`cpm_tune.backbone.padded`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cpm_tune.backbone.base import Batch, dummy_fields, scored
from cpm_tune.backbone.example import Example
from cpm_tune.backbone.padded import sequences

_PADDING = 1.15  # a group of rows may have so many times the ids that are not padding
_WORTH = 256  # ids of a group, to be one


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
        ids=pad_sequence(ids, batch_first=True, padding_value=pad),
        lengths=torch.tensor([len(row) for row in ids]),
        target_row=target_row,
        target_place=target_place,
        **scored(examples),
    )


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

    Nothing sees the padding, so this changes no logit. All rows are one group if they have to stay
    `together`, and on a GPU.
    """
    n = len(lengths)
    if together or ids.device.type != "cpu":
        return [(0, n, ids.shape[1])]
    each = lengths.tolist() if _has_values(lengths) else [ids.shape[1]] * n
    groups, first, used = list[tuple[int, int, int]](), 0, 0
    for number, length in enumerate(each):
        size = (number - first + 1) * each[first]
        if number > first and used >= _WORTH and size > _PADDING * (used + length):
            groups.append((first, number, each[first]))
            first, used = number, 0
        used += length
    return [*groups, (first, n, each[first])]


def _has_values(tensor: Tensor) -> bool:
    return not (tensor.is_meta or type(tensor).__name__ == "FakeTensor")
