"""CPM-Ant's sequences: its own soft prompt, `<s>`, the text; and in which segments they are.

A sequence is a context and all but the last token of an answer to it; the hidden state before each
of the answer's tokens is scored for that token. Answers of one token share their context's
sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.backbone.example import Example, Ids
from cpm_tune.backbone.protocol import Infilling, Shown
from cpm_tune.common.door import load
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Encoding

PROMPT_SEGMENT = 0
INFILLING = Encoding(prompt_type=1, segment=1)  # what pre-training has for it


@dataclass(frozen=True, slots=True)
class AntSequence:
    """Ids whose first `n_context` are visible to all others; the candidates scored in them."""

    ids: Ids
    n_context: int
    candidates: Sequence[int]


@dataclass(frozen=True, slots=True)
class AntLayout:
    """The ids that every context begins with, and the segments.

    start: the rows of the backbone's soft prompt, as ids, then `<s>`. Its first `n_prompt` ids are
    in PROMPT_SEGMENT, all that follows is in `segment`. first_free: the first id that is neither a
    token nor such a row.
    """

    start: Ids
    n_prompt: int
    segment: int
    first_free: int
    tokenizer: Tokenizer | None = field(default=None, repr=False, compare=False)

    @property
    def shortest(self) -> int:
        return self.n_prompt

    def n_tokens(self, example: Example) -> int:
        """The length of an example's sequences together."""
        return sum(len(sequence.ids) for sequence in sequences(example))

    def collate(self, examples: Sequence[Example]) -> Any:
        """Pack whole examples into one AntBatch."""
        return load("cpm_tune.backbone.ant.collate:collate")(examples, self)

    def describe(self, example: Example) -> list[Shown]:
        """Each sequence: its text tokens, and the entries that are scored."""
        assert self.tokenizer is not None
        rows, entries = [], self.tokenizer.entries
        for sequence in sequences(example):
            targets = tuple(
                (position, entries[token])
                for k in sequence.candidates
                for position, token in enumerate(example.candidates[k].ids, sequence.n_context - 1)
            )
            text = tuple(entries.get(i, "<soft>") for i in sequence.ids[self.n_prompt :])
            rows.append(Shown(self.n_prompt, text, len(sequence.ids), targets))
        return rows


def make_layout(encoding: Encoding, config: CPMAntConfig, tokenizer: Tokenizer) -> AntLayout:
    """The layout that `encode.prompt_type` and `encode.segment` choose.

    Raises UserError if the backbone has no such prompt or segment.
    """
    for setting, top in (("prompt_type", "prompt_types"), ("segment", "segment_types")):
        value, limit = getattr(encoding, setting), getattr(config, top)
        if value >= limit:
            raise UserError(
                f"encode.{setting} is {value}, but this backbone has {limit} ({top}); choose 0 to "
                f"{limit - 1}."
            )
    first, n = config.vocab_size, config.prompt_length
    start = first + encoding.prompt_type * n
    return AntLayout(
        start=(*range(start, start + n), tokenizer.bos),
        n_prompt=n,
        segment=encoding.segment,
        first_free=first + config.prompt_types * n,
        tokenizer=tokenizer,
    )


def make_infilling(config: CPMAntConfig, tokenizer: Tokenizer) -> Infilling:
    """How pre-training's infilling looks: `</s>` ends the text."""
    layout = make_layout(INFILLING, config, tokenizer)
    return Infilling(layout, tokenizer.pad, (tokenizer.eos,))


def sequences(example: Example) -> Iterator[AntSequence]:
    """The sequences of an example, in the order of its contexts and candidates."""
    answers: list[list[int]] = [[] for _ in example.contexts]
    for number, answer in enumerate(example.candidates):
        answers[answer.context].append(number)
    for context, numbers in zip(example.contexts, answers, strict=True):
        if all(len(example.candidates[number].ids) == 1 for number in numbers):
            yield AntSequence(context, len(context), numbers)
            continue
        for number in numbers:
            ids = context + example.candidates[number].ids[:-1]
            yield AntSequence(ids, len(context), (number,))
