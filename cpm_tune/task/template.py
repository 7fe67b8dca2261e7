"""Prompts: a template's text, its pieces, and what a row looks like in it."""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from cpm_tune.schema.options import Scoring

NUMERALS = "一二三四五六七八九十"


@dataclass(frozen=True)
class Piece:
    """A part of a template: `kind` is text, field, option or answer."""

    kind: str
    value: str = ""


@dataclass(frozen=True)
class Template:
    """A named, versioned prompt.

    With `{option}` every option is put into the prompt in turn and scored by the logit of the token
    `yes` at its end (CPM-Ant's protocol). With `{answer}` at the end, options are scored by their
    log-probability as the continuation (a verbaliser, CPM-2's protocol), or the answer is generated
    there. `options` are the texts in the order of the task's labels; for a task whose rows have
    their own options they stand for the first, the second … option; without them the option's text
    is used.

    `scoring` is the template's own scoring rule (see `cpm_tune.task.scoring`), if it is not that of
    its slot: yes-logit for `{option}`, verbaliser-sum for `{answer}`.

    A column of texts is shown as 一、… 二、…. Fields that are too long lose their end, those in
    `keep_end` their beginning.
    """

    name: str
    text: str
    options: tuple[str, ...] = ()
    version: int = 1
    yes: str = "是"
    keep_end: tuple[str, ...] = ()
    scoring: Scoring | None = None

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The parsed template text."""
        pieces: list[Piece] = []
        for literal, name, spec, conversion in string.Formatter().parse(self.text):
            if literal:
                pieces.append(Piece("text", literal))
            if name is None:
                continue
            if spec or conversion or not re.fullmatch(r"\w+", name):
                raise ValueError(f"template '{self.name}': '{{{name}}}' is not a plain field name")
            kind = name if name in ("option", "answer") else "field"
            pieces.append(Piece(kind, name))
        return tuple(pieces)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the row fields the template shows, in order."""
        return tuple(piece.value for piece in self.pieces if piece.kind == "field")

    @property
    def scores_in_prompt(self) -> bool:
        """Whether options are put into the prompt (else they come after it)."""
        return any(piece.kind == "option" for piece in self.pieces)

    @property
    def own_scoring(self) -> Scoring:
        """The rule that runs have which choose none. What a slot's is never changes: it is not in
        their specs."""
        return self.scoring or ("yes-logit" if self.scores_in_prompt else "verbaliser-sum")

    @property
    def sha256(self) -> str:
        """Fingerprint of everything that decides what the model sees and how it answers."""
        yes = self.yes if self.scores_in_prompt else ""
        parts = "\x1f".join((self.text, yes, *self.options, "\x1e", *self.keep_end))
        if self.scoring:
            parts += f"\x1d{self.scoring}"
        return hashlib.sha256(parts.encode()).hexdigest()

    def cut(self, row: Mapping[str, Any], name: str, cap: int | None) -> str:
        """A field's text; longer than `cap` characters it is cut at the side that may go."""
        value = row[name]
        if not isinstance(value, str):
            return "".join(self.listed(value, cap))
        if cap is None or len(value) <= cap:
            return value
        return value[len(value) - cap :] if name in self.keep_end else value[:cap]

    @staticmethod
    def listed(texts: Sequence[str], cap: int | None) -> list[str]:
        """How each text of a column of texts is shown: 一、first, then with a space before 二、."""
        return [
            f"{' ' * (i > 0)}{NUMERALS[i] if i < len(NUMERALS) else i + 1}、{text[:cap]}"
            for i, text in enumerate(texts)
        ]

    def render(
        self, row: Mapping[str, Any], option: str, cap: int | None = None
    ) -> tuple[str, str, str]:
        """The text before the option or answer, the option or answer, and the text after it."""
        parts = ["", "", ""]
        at = 0
        for piece in self.pieces:
            if piece.kind in ("option", "answer"):
                parts[1] = option[:cap] if piece.kind == "option" else option
                at = 2
            else:
                value = piece.value
                parts[at] += value if piece.kind == "text" else self.cut(row, value, cap)
        return parts[0], parts[1], parts[2]

    def check(self, shown: Sequence[str], kind: str, n_options: int) -> None:
        """Raise ValueError where the template does not fit the task's columns and answer kind."""
        slots = [piece.kind for piece in self.pieces if piece.kind in ("option", "answer")]
        if len(slots) != 1:
            raise ValueError(
                f"template '{self.name}' needs exactly one of {{option}} and {{answer}}"
            )
        if slots[0] == "answer" and self.pieces[-1].kind != "answer":
            raise ValueError(f"template '{self.name}': {{answer}} must come last")
        for name in (*self.fields, *self.keep_end):
            if name not in shown:
                raise ValueError(f"template '{self.name}' names unknown field '{name}'")
        if self.scoring and (kind == "generate" or self.scoring not in get_args(Scoring)):
            raise ValueError(
                f"template '{self.name}': there is no scoring rule '{self.scoring}' here"
            )
        if not isinstance(self.options, tuple):
            raise TypeError(f"template '{self.name}': options must be a tuple of texts")
        if kind == "generate":
            if self.scores_in_prompt or self.options:
                raise ValueError(
                    f"template '{self.name}': a generated answer needs {{answer}} and no options"
                )
        elif kind == "choice":
            if len(self.options) != n_options or len(set(self.options)) != n_options:
                raise ValueError(f"template '{self.name}' needs {n_options} different options")
        elif kind == "rank" and not self.scores_in_prompt:
            raise ValueError(f"template '{self.name}': documents are ranked by {{option}}")
        elif self.scores_in_prompt and self.options:
            raise ValueError(f"template '{self.name}': the row's own options stand for {{option}}")
        elif self.options and len(set(self.options)) < n_options:
            raise ValueError(f"template '{self.name}' needs {n_options} different options")
