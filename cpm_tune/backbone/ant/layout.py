"""CPM-Ant's sequences: its own soft prompt, `<s>`, the text; and in which segments they are.

What a sequence is and where it is scored: `cpm_tune.backbone.padded`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.backbone.example import Example, Ids
from cpm_tune.backbone.padded import sequences
from cpm_tune.backbone.protocol import Infilling, Shown
from cpm_tune.common.door import load
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Encoding

PROMPT_SEGMENT = 0
INFILLING = Encoding(prompt_type=1, segment=1)  # what pre-training has for it


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
    lead: ClassVar[Ids] = ()
    around: ClassVar[int] = 0

    @property
    def shortest(self) -> int:
        return self.n_prompt

    def n_tokens(self, example: Example) -> int:
        """The length of an example's sequences together."""
        return sum(len(ids) for ids, _, _ in sequences(example))

    def collate(self, examples: Sequence[Example]) -> Any:
        """Pack whole examples into one AntBatch."""
        return load("cpm_tune.backbone.ant.collate:collate")(examples, self)

    def describe(self, example: Example) -> list[Shown]:
        """Each sequence: its text tokens, and the entries that are scored."""
        assert self.tokenizer is not None
        rows, entries = [], self.tokenizer.entries
        for ids, n_context, numbers in sequences(example):
            targets = tuple(
                (position, entries[token])
                for k in numbers
                for position, token in enumerate(example.candidates[k].ids, n_context - 1)
            )
            text = tuple(entries.get(i, "<soft>") for i in ids[self.n_prompt :])
            rows.append(Shown(self.n_prompt, text, len(ids), targets))
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
    prompt_type, segment = encoding.prompt_type, encoding.segment
    assert prompt_type is not None  # as RunSpec has checked
    assert segment is not None
    first, n = config.vocab_size, config.prompt_length
    start = first + prompt_type * n
    return AntLayout(
        start=(*range(start, start + n), tokenizer.bos),
        n_prompt=n,
        segment=segment,
        first_free=first + config.prompt_types * n,
        tokenizer=tokenizer,
    )


def make_infilling(config: CPMAntConfig, tokenizer: Tokenizer) -> Infilling:
    """How pre-training's infilling looks: `</s>` ends the text."""
    layout = make_layout(INFILLING, config, tokenizer)
    return Infilling(layout, tokenizer.pad, (tokenizer.eos,))
