"""CPM-Ant's pre-training objective: text infilling and generation, half and half.

A piece is its soft prompt, `<s>`, tokens, `</s>`. The number of masked tokens is uniform from 1
to all but the first. Infilling (prompt type 1, segment 1) masks random positions, generation
(prompt type 2, segment 2) the tail. Masked tokens are no context; the hidden state before each of
them predicts it. Loss is on masked tokens only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.errors import UserError

INFILLING, GENERATION = 0, 1
OBJECTIVES = ("infilling", "generation")
PROMPT_SEGMENT, PADDING_SPAN = 0, -1
TARGET_BLOCK = 512  # targets are padded to a multiple of it: few shapes for the compiler


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


@dataclass(frozen=True)
class PackedRows:
    """A batch of rows of pieces. ids, segment, span: int64 (rows, width); context: bool.

    index: int64 (targets,), flat position whose hidden state predicts `token`: int64 (targets,).
    objective, source: int64 (targets,), what each target counts for. `n_tokens`: without padding.
    """

    ids: Tensor
    segment: Tensor
    span: Tensor
    context: Tensor
    index: Tensor
    token: Tensor
    objective: NDArray[np.int64]
    source: NDArray[np.int64]
    n_tokens: int


def build_rows(
    rows: Sequence[tuple[int, Sequence[tuple[NDArray[np.int64], PieceMask]]]], row_format: RowFormat
) -> PackedRows:
    """Make a batch of rows of (source, [(ids of a piece without <s> and </s>, mask)])."""
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
    return PackedRows(
        ids=torch.from_numpy(ids),
        segment=torch.from_numpy(segment),
        span=torch.from_numpy(span),
        context=torch.from_numpy(context),
        index=torch.from_numpy(index),
        token=torch.from_numpy(ids.reshape(-1)[index + 1]),
        objective=objective,
        source=source,
        n_tokens=int((span >= 0).sum()),
    )


def _losses(
    model: CPMAnt,
    ids: Tensor,
    segment: Tensor,
    span: Tensor,
    context: Tensor,
    index: Tensor,
    token: Tensor,
) -> Tensor:
    hidden = model(ids, segment, context, span).flatten(0, 1)[index]
    return F.cross_entropy(model.logits(hidden).float(), token, reduction="none")


def _explained(compiled: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same function; a failure to compile becomes a UserError."""
    from torch._dynamo.exc import BackendCompilerFailed

    def call(*args: object) -> Tensor:
        try:
            return compiled(*args)
        except BackendCompilerFailed as error:
            raise UserError(
                f"torch.compile failed ({error.inner_exception}); install a C++ compiler (g++), or "
                "give --no-compile."
            ) from error

    return call


class TargetLosses:
    """Nats of every target of a batch: (targets,) fp32, in bf16 autocast or compiled if asked for.

    `fresh`: the last call had to be compiled.
    """

    def __init__(self, model: CPMAnt, *, bf16: bool, compiled: bool) -> None:
        self.model, self.bf16, self.compiled = model, bf16, compiled
        self.fresh = False
        self._known: set[int] = set()
        self._call: Callable[..., Tensor] = _losses
        if compiled:
            self._call = _explained(torch.compile(_losses, dynamic=False))

    def __call__(self, rows: PackedRows) -> Tensor:
        """The targets are padded to a multiple of TARGET_BLOCK for the call."""
        n = len(rows.index)
        padding = -n % TARGET_BLOCK
        index, token = F.pad(rows.index, (0, padding)), F.pad(rows.token, (0, padding))
        self.fresh = self.compiled and len(index) not in self._known
        self._known.add(len(index))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            losses = self._call(
                self.model, rows.ids, rows.segment, rows.span, rows.context, index, token
            )
        return losses[:n]
