"""An encoder-decoder's sequences: contexts for the encoder, answers for the decoder.

The decoder reads a start token, then the answer; each of its positions is scored for the token that
follows. Where answers begin is the setting `encode.target`:

- answer: right after the start token.
- sentinel: after the first sentinel (`<extra_id_0>`, `<s_0>`), which is in the loss only.
- blank: so, and the sentinel also ends the context, as a blank that the answer fills.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from cpm_tune.backbone.example import Example, Ids
from cpm_tune.backbone.protocol import Shown
from cpm_tune.backbone.tokens import Tokenizer
from cpm_tune.common.door import load

Inputs = dict[Ids, list[int]]  # of the decoder, after its start: which candidates each is for


@dataclass(frozen=True)
class EncDecLayout:
    """`rows` of the table of embeddings; `end`: the ids that end a context; `first`: what begins
    the decoder's input; `sentinel`: the first one; `form`: see above."""

    tokenizer: Tokenizer
    rows: int
    first: int
    sentinel: int
    end: Ids = ()
    form: str = "answer"

    start: ClassVar[Ids] = ()
    shortest: ClassVar[int] = 0

    @property
    def first_free(self) -> int:
        return max(self.rows, len(self.tokenizer))

    @property
    def lead(self) -> Ids:
        """What every answer begins with."""
        return () if self.form == "answer" else (self.sentinel,)

    @property
    def around(self) -> int:
        """The ids that end the encoder's input and begin the decoder's."""
        return len(self.end) + 1 + (self.form == "blank")

    def encoder_ids(self, context: Ids) -> Ids:
        """What the encoder reads for a context; it has to read something."""
        blank = self.form == "blank" or not (context or self.end)
        return (*context, *((self.sentinel,) if blank else ()), *self.end)

    def n_tokens(self, example: Example) -> int:
        """The tokens of both stacks."""
        return sum(
            len(self.encoder_ids(context)) + sum(len(ids) + 1 for ids in inputs)
            for context, inputs in rows_of(example)
        )

    def collate(self, examples: Sequence[Example]) -> Any:
        """One EncDecBatch of whole examples."""
        return load("cpm_tune.backbone.encdec.batch:collate")(examples, self)

    def describe(self, example: Example) -> list[Shown]:
        """Each context, and after it what the decoder reads; the entries that are scored."""
        shown, entries = [], self.tokenizer.entries
        for context, inputs in rows_of(example):
            ids, scored = [*self.encoder_ids(context)], list[tuple[int, str]]()
            for given, numbers in inputs.items():
                place = len(ids)
                ids += (self.first, *given)
                for number in numbers:
                    targets = enumerate(example.candidates[number].ids, place)
                    scored += [(at, entries[token]) for at, token in targets]
            text = tuple(entries.get(i, "<soft>") for i in ids)
            shown.append(Shown(0, text, len(ids), tuple(scored)))
        return shown


def rows_of(example: Example) -> Iterator[tuple[Ids, Inputs]]:
    """Each context with the decoder's inputs after it; answers that differ in their last token
    alone share one."""
    inputs: list[Inputs] = [{} for _ in example.contexts]
    for number, answer in enumerate(example.candidates):
        inputs[answer.context].setdefault(answer.ids[:-1], []).append(number)
    yield from zip(example.contexts, inputs, strict=True)
