"""CPM-Ant's pre-training objective: text infilling and generation, half and half.

A piece is its soft prompt, `<s>`, tokens, `</s>`. The number of masked tokens is uniform from 1
to all but the first. Infilling (prompt type 1, segment 1) masks random positions, generation
(prompt type 2, segment 2) the tail. Masked tokens are no context; the hidden state before each of
them predicts it. Loss is on masked tokens only.
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

from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.layout import AntLayout, make_layout
from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.backbone.example import Ids
from cpm_tune.backbone.pretraining import TrainingBatch
from cpm_tune.backbone.rows import Pieces, cut_and_pack
from cpm_tune.common.environment import machine_memory
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Encoding

INFILLING, GENERATION = 0, 1
OBJECTIVES = ("infilling", "generation")
PROMPT_SEGMENT, PADDING_SPAN = 0, -1
FRAME = 2  # <s> and </s>


@dataclass(frozen=True)
class RowFormat:
    """What rows take from backbone and vocabulary, and their width in tokens."""

    vocab_size: int
    prompt_length: int
    bos: int
    eos: int
    pad: int
    width: int

    @classmethod
    def of(cls, config: CPMAntConfig, tokenizer: Tokenizer, width: int) -> RowFormat:
        """Take it from config and tokenizer; UserError if the config has too few types."""
        if config.prompt_types < 3 or config.segment_types < 3:
            raise UserError(
                f"the config has {config.prompt_types} prompt_types and {config.segment_types} "
                "segment_types; the objective needs 3 of each."
            )
        return cls(
            config.vocab_size,
            config.prompt_length,
            tokenizer.bos,
            tokenizer.eos,
            tokenizer.pad,
            width,
        )

    def prompt(self, objective: int) -> NDArray[np.int64]:
        """Ids of the objective's soft prompt."""
        start = self.vocab_size + (objective + 1) * self.prompt_length
        return np.arange(start, start + self.prompt_length)


@dataclass(frozen=True)
class PieceMask:
    """An objective and which of a framed piece's positions are masked: bool (length + 2,)."""

    objective: int
    masked: NDArray[np.bool_]


def draw_mask(
    generator: np.random.Generator, length: int, objective: int | None = None
) -> PieceMask:
    """Draw objective (unless given) and masked positions for a framed piece of `length`."""
    if objective is None:
        objective = int(generator.integers(2))
    count = int(generator.integers(1, length))
    masked = np.zeros(length, dtype=bool)
    if objective == INFILLING:
        masked[1 + generator.choice(length - 1, count, replace=False)] = True
    else:
        masked[length - count :] = True
    return PieceMask(objective, masked)


def build_rows(
    rows: Sequence[tuple[int, Sequence[tuple[NDArray[np.int64], PieceMask]]]], row_format: RowFormat
) -> TrainingBatch:
    """Make a batch of rows of (source, [(ids of a piece without <s> and </s>, mask)]).

    Inputs: ids, segment: int64 (rows, width); context: bool, span: int64, of the same shape.
    """
    shape = (len(rows), row_format.width)
    ids = np.full(shape, row_format.pad, dtype=np.int64)
    segment = np.full(shape, PROMPT_SEGMENT, dtype=np.int64)
    span = np.full(shape, PADDING_SPAN, dtype=np.int64)
    context = np.zeros(shape, dtype=bool)
    targets: list[list[NDArray[np.int64]]] = []  # index, objective and source
    for r, (origin, pieces) in enumerate(rows):
        start = 0
        for number, (piece, mask) in enumerate(pieces):
            text = start + row_format.prompt_length
            end = text + len(piece) + 2
            ids[r, start:text] = row_format.prompt(mask.objective)
            ids[r, text:end] = np.concatenate(([row_format.bos], piece, [row_format.eos]))
            segment[r, text:end] = mask.objective + 1
            span[r, start:end] = number
            context[r, start:text] = True
            context[r, text:end] = ~mask.masked
            before = np.flatnonzero(mask.masked) - 1 + text + r * row_format.width
            targets.append(
                [before, np.full_like(before, mask.objective), np.full_like(before, origin)]
            )
            start = end
    index, objective, source = np.concatenate(targets, axis=1)
    inputs = (ids, segment, context, span)
    return TrainingBatch(
        inputs=tuple(map(torch.from_numpy, inputs)),
        index=torch.from_numpy(index),
        token=torch.from_numpy(ids.reshape(-1)[index + 1]),
        objective=objective,
        source=source,
        n_tokens=int((span >= 0).sum()),
    )


def target_nats(model: CPMAnt, index: Tensor, token: Tensor, *inputs: Tensor) -> Tensor:
    """Nats of every target: fp32 (targets,)."""
    hidden = model(*inputs).flatten(0, 1)[index]
    return F.cross_entropy(model.logits(hidden).float(), token, reduction="none")


Item = list[tuple[NDArray[np.int64], PieceMask]]


@dataclass(frozen=True)
class AntObjective:
    """See `cpm_tune.backbone.pretraining.Objective`. An item: a row's pieces and their masks."""

    row_format: RowFormat
    layout: AntLayout
    shortest: int
    banned: frozenset[int]
    labels: tuple[str, ...] = OBJECTIVES
    losses = staticmethod(target_nats)

    def rows(self, tokens: NDArray[Any], offsets: NDArray[np.int64], seed: int) -> Pieces:
        """Pieces of documents, packed."""
        frame = self.row_format.prompt_length + FRAME
        return cut_and_pack(tokens, offsets, self.row_format.width, frame, self.shortest, seed)

    def drawn(
        self,
        generator: np.random.Generator,
        row: Sequence[NDArray[np.int64]],
        label: int | None = None,
    ) -> Item:
        """The pieces of a row, each with objective and masks of its own."""
        return [(piece, draw_mask(generator, len(piece) + FRAME, label)) for piece in row]

    def predicting(self, given: Sequence[int], ids: Sequence[int]) -> Item:
        """By the generation objective; what does not fit into the row is left out."""
        room = self.row_format.width - self.row_format.prompt_length - FRAME
        piece = np.array([*given, *ids][:room], dtype=np.int64)
        masked = np.arange(len(piece) + FRAME) > len(given)
        return [(piece, PieceMask(GENERATION, masked))]

    def batch(self, items: Sequence[tuple[int, Item]]) -> TrainingBatch:
        """See `build_rows`."""
        return build_rows(items, self.row_format)

    @property
    def end(self) -> int:
        return self.row_format.eos

    def context(self, ids: Sequence[int]) -> Ids:
        """The generation objective's soft prompt, <s> and the text."""
        return (*self.layout.start, *ids)


def make_objective(
    config: CPMAntConfig, tokenizer: Tokenizer, *, width: int, shortest: int, rows: int
) -> AntObjective:
    """See `cpm_tune.backbone.pretraining.Pretraining.objective`."""
    _check(config, width, shortest, rows)
    number = GENERATION + 1
    row_format = RowFormat.of(config, tokenizer, width)
    layout = make_layout(Encoding(prompt_type=number, segment=number), config, tokenizer)
    banned = frozenset({tokenizer.unk, tokenizer.pad, tokenizer.bos})
    return AntObjective(row_format, layout, shortest, banned)


def _check(config: CPMAntConfig, width: int, shortest: int, rows: int) -> None:
    if width < config.prompt_length + 4:
        raise UserError(
            f"--width {width}: a row must contain more than its soft prompt "
            f"({config.prompt_length})."
        )
    if (room := width - config.prompt_length - FRAME) < shortest:
        raise UserError(
            f"--width {width}: a row has room for {room} tokens besides the soft prompt "
            f"({config.prompt_length}), <s> and </s>, but pieces have at least --shortest "
            f"{shortest}. Give a greater --width or a smaller --shortest."
        )
    bias = 4 * rows * config.num_heads * width**2  # bytes; a step needs several times that
    memory = machine_memory()
    if memory is not None and bias > memory:
        raise UserError(
            f"--rows {rows} --width {width}: attention alone takes {bias / 1e9:,.0f} GB, more than "
            f"the {memory / 1e9:,.0f} GB of this machine. Give fewer rows or a smaller width."
        )
