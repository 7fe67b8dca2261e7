"""Turns a row into sequences for the backbone. The only encoder: training and inference share it.

A sequence is: soft-prompt rows (segment 0), `<s>`, the text. Too long texts are shortened by one
rule: the longest field loses characters from its end until the sequence fits; the template's own
words and the options are never cut. What was cut is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cpm_tune.backbone.config import CPMAntConfig
from cpm_tune.backbone.tokenizer import Tokenizer
from cpm_tune.errors import UserError
from cpm_tune.spec import Encoding
from cpm_tune.task import Row, Task, Template

PROMPT_SEGMENT = 0


@dataclass(frozen=True, slots=True)
class Target:
    """The hidden state at `position` of sequence number `sequence` is scored for `token`."""

    sequence: int
    position: int
    token: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """Ids from the soft prompt on; positions before `n_context` are visible to all others."""

    ids: tuple[int, ...]
    n_context: int


@dataclass(frozen=True, slots=True)
class Example:
    """One row, encoded. A candidate answer's score is the sum over its targets.

    `gold` is the index of the right candidate.
    """

    id: str
    sequences: tuple[Sequence, ...]
    candidates: tuple[tuple[Target, ...], ...]
    gold: int
    truncated: bool

    @property
    def n_tokens(self) -> int:
        """Length of all sequences together."""
        return sum(len(sequence.ids) for sequence in self.sequences)


class Encoder:
    """Encodes the rows of one task with one template and one vocabulary."""

    def __init__(
        self,
        task: Task,
        template: Template,
        encoding: Encoding,
        config: CPMAntConfig,
        tokenizer: Tokenizer,
    ) -> None:
        """Raises UserError where template or settings do not fit the vocabulary or the backbone."""
        self.template, self.encoding, self.tokenizer = template, encoding, tokenizer
        self.by_option = template.by_option
        for setting, top in (("prompt_type", "prompt_types"), ("segment", "segment_types")):
            value, limit = getattr(encoding, setting), getattr(config, top)
            if value >= limit:
                raise UserError(
                    f"encode.{setting} is {value}, but this backbone has {limit} ({top}); "
                    f"choose 0 to {limit - 1}."
                )
        start = config.vocab_size + encoding.prompt_type * config.prompt_length
        self.head = (*range(start, start + config.prompt_length), tokenizer.bos)
        self.n_prompt = config.prompt_length
        slot = next(i for i, p in enumerate(template.pieces) if p.kind in ("option", "answer"))
        self._before = template.pieces[:slot]
        self._after = "".join(piece.value for piece in template.pieces[slot + 1 :])
        self._fields = template.fields
        self._options = tuple(self._known(option, "option") for option in template.options)
        self._tail = tuple(tokenizer.encode(self._after))
        self._yes = self._known(template.yes, "answer word") if self.by_option else ()
        if self.by_option and len(self._yes) != 1:
            raise UserError(f"'{template.yes}' is not a single entry of this vocabulary.")
        self._room = encoding.max_length - max(map(len, self._options)) - len(self._tail)
        without_fields = len(self._prefix_ids(dict.fromkeys(self._fields, ""), None))
        if without_fields > self._room:
            least = encoding.max_length + without_fields - self._room
            raise UserError(
                f"encode.max_length is {encoding.max_length}: the soft prompt and template "
                f"'{template.name}' alone need {least}; give more."
            )

    def _known(self, text: str, what: str) -> tuple[int, ...]:
        ids = tuple(self.tokenizer.encode(text))
        if not ids or self.tokenizer.unk in ids:
            raise UserError(
                f"{what} '{text}' of template '{self.template.name}' cannot be written in this "
                "vocabulary; use another template or backbone."
            )
        return ids

    def encode(self, row: Row, *, train: bool = False) -> Example:
        """Encode a row. With `train`, a verbaliser's wrong options are left out (they carry no
        loss: CPM-2 trains on the gold answer's tokens)."""
        before, truncated = self._fit(row)
        gold = int(row["target"])
        start = len(before) - 1
        if self.by_option:
            sequences = tuple(
                Sequence(ids := (*before, *option, *self._tail), len(ids))
                for option in self._options
            )
            candidates: tuple[tuple[Target, ...], ...] = tuple(
                (Target(k, len(s.ids) - 1, self._yes[0]),) for k, s in enumerate(sequences)
            )
        elif all(len(option) == 1 for option in self._options):
            sequences = (Sequence(before, len(before)),)
            candidates = tuple((Target(0, start, option[0]),) for option in self._options)
        else:
            sequences = tuple(Sequence(before + o[:-1], len(before)) for o in self._options)
            candidates = tuple(
                tuple(Target(k, start + i, token) for i, token in enumerate(option))
                for k, option in enumerate(self._options)
            )
        if train and not self.by_option:
            kept = candidates[gold]
            sequences = (sequences[kept[0].sequence],)
            candidates = (tuple(Target(0, t.position, t.token) for t in kept),)
            gold = 0
        return Example(str(row["id"]), sequences, candidates, gold, truncated)

    def prefix(self, row: Row, cap: int | None = None) -> str:
        """The text before the option or answer, with every field cut to `cap` characters."""
        return "".join(
            piece.value if piece.kind == "text" else row[piece.value][:cap]
            for piece in self._before
        )

    def _prefix_ids(self, row: Row, cap: int | None) -> tuple[int, ...]:
        return (*self.head, *self.tokenizer.encode(self.prefix(row, cap)))

    def _fit(self, row: Row) -> tuple[tuple[int, ...], bool]:
        """Ids up to the option or answer, within max_length, and whether a field was cut."""
        whole = self._prefix_ids(row, None)
        if len(whole) <= self._room:
            return whole, False
        low, high = 0, max((len(row[name]) for name in self._fields), default=0)
        while high - low > 1:  # `low` characters fit, `high` do not
            middle = (low + high) // 2
            fits = len(self._prefix_ids(row, middle)) <= self._room
            low, high = (middle, high) if fits else (low, middle)
        return self._prefix_ids(row, low), True


def describe(example: Example, encoder: Encoder) -> list[dict[str, Any]]:
    """For people: the text tokens and the scored positions of each sequence."""
    rows = []
    for number, sequence in enumerate(example.sequences):
        text = [encoder.tokenizer.entries[i] for i in sequence.ids[encoder.n_prompt :]]
        targets = [
            (t.position, encoder.tokenizer.entries[t.token])
            for candidate in example.candidates
            for t in candidate
            if t.sequence == number
        ]
        rows.append({"tokens": text, "targets": targets, "length": len(sequence.ids)})
    return rows
