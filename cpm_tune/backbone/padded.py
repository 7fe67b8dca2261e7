"""Sequences in rows that are padded on the right: what a model needs that reads from left to right.

A candidate's sequence is its context and all but its last token; the hidden state before each of
its tokens is scored for that token. Candidates of one token share their context's sequence. The
longest sequence is first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from cpm_tune.backbone.example import Example, Ids
from cpm_tune.backbone.protocol import Shown
from cpm_tune.backbone.tokens import Tokenizer
from cpm_tune.common.door import load

CandidateSequence = tuple[Ids, int, tuple[int, ...]]  # ids, how many are context, which candidates


@dataclass(frozen=True)
class PaddedLayout:
    """Contexts begin with `start`; soft prompts have ids from the vocabulary's size on."""

    tokenizer: Tokenizer
    start: Ids = ()
    lead: ClassVar[Ids] = ()
    around: ClassVar[int] = 0

    @property
    def shortest(self) -> int:
        return max(1, len(self.start))

    @property
    def first_free(self) -> int:
        return len(self.tokenizer)

    def n_tokens(self, example: Example) -> int:
        return sum(len(ids) for ids, _, _ in sequences(example))

    def collate(self, examples: Sequence[Example]) -> Any:
        """One PaddedBatch of whole examples."""
        return load("cpm_tune.backbone.padded_batch:collate")(examples, self.tokenizer.pad)

    def describe(self, example: Example) -> list[Shown]:
        """Each sequence: its text tokens, and the entries that are scored."""
        shown, entries = [], self.tokenizer.entries
        for ids, n_context, numbers in sequences(example):
            text = tuple(entries.get(i, "<soft>") for i in ids)
            scored = tuple(
                (place, entries[token])
                for number in numbers
                for place, token in enumerate(example.candidates[number].ids, n_context - 1)
            )
            shown.append(Shown(0, text, len(ids), scored))
        return shown


def sequences(example: Example) -> Iterator[CandidateSequence]:
    """The sequences of an example, in the order of its contexts and candidates."""
    answers: list[list[int]] = [[] for _ in example.contexts]
    for number, answer in enumerate(example.candidates):
        answers[answer.context].append(number)
    for context, numbers in zip(example.contexts, answers, strict=True):
        if all(len(example.candidates[number].ids) == 1 for number in numbers):
            yield context, len(context), tuple(numbers)
            continue
        for number in numbers:
            yield context + example.candidates[number].ids[:-1], len(context), (number,)
