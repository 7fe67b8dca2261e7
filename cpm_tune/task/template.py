"""Prompts: a template's text, its pieces, and what a row looks like in it.

A template's text has, in braces: the names of the row's fields, `option` or `answer`, special
entries of the vocabulary as they are written there (`{<sep>}`; with a question mark, `{<s_0>?}`,
only of vocabularies that have it), and `{|}`, which ends a text: what is before it is encoded
without what is after it. A special entry ends a text, too; so do `{option}` and `{answer}`.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from cpm_tune.schema.options import Scoring

NUMERALS = "一二三四五六七八九十"
EACH = "{numeral}、{text}"
_SPECIAL = re.compile(r"(<[^<>\s]+>)(\??)")


@dataclass(frozen=True)
class Piece:
    """A part of a template.

    `kind` is text, field, option, answer, special (`value` is the entry), optional (a special entry
    that a vocabulary may lack) or break (the end of a text). A field that is `stripped` is shown
    without blanks around it.
    """

    kind: str
    value: str = ""
    stripped: bool = False

    @property
    def text(self) -> str:
        """How it looks to people."""
        return "" if self.kind == "optional" else self.value


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

    A column of texts is shown as 一、… 二、…, or each of them as in `each`, a template of {text},
    {numeral} (一 is the first) and {number} (0 is the first). Fields that are too long lose their
    end, those in `keep_end` their beginning. `end` follows a generated answer, before the end mark.

    `counts` says which tokens have a likelihood in the loss and in mean-nll. By default they are
    the answer's, by mean-nll those of the whole text. "text": of the whole text, the prompt
    included, which is encoded as one. "after": of what comes after the option.

    `metrics` are computed in addition to the task's.
    """

    name: str
    text: str
    options: tuple[str, ...] = ()
    version: int = 1
    yes: str = "是"
    keep_end: tuple[str, ...] = ()
    scoring: Scoring | None = None
    each: str = ""
    end: str = ""
    counts: Literal["", "text", "after"] = ""
    metrics: tuple[str, ...] = ()

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The parsed template text."""
        return self._parsed(self.text)

    def _parsed(self, text: str) -> tuple[Piece, ...]:
        pieces: list[Piece] = []
        for literal, name, spec, conversion in string.Formatter().parse(text):
            if literal:
                pieces.append(Piece("text", literal))
            if name is None:
                continue
            special = _SPECIAL.fullmatch(name)
            if special:
                pieces.append(Piece("optional" if special[2] else "special", special[1]))
            elif name == "|":
                pieces.append(Piece("break"))
            elif conversion or spec not in ("", "strip") or not re.fullmatch(r"\w+", name):
                raise ValueError(f"template '{self.name}': '{{{name}}}' is not a plain field name")
            elif name in ("option", "answer") and not spec:
                pieces.append(Piece(name, name))
            else:
                pieces.append(Piece("field", name, stripped=bool(spec)))
        return tuple(pieces)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the row fields the template shows, in order."""
        return tuple(piece.value for piece in self.pieces if piece.kind == "field")

    @property
    def specials(self) -> dict[str, bool]:
        """The special entries, and whether a vocabulary may lack them."""
        pieces = (*self.pieces, *self._parsed(self.each))
        kinds = ("special", "optional")
        return {piece.value: piece.kind == "optional" for piece in pieces if piece.kind in kinds}

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
        if self.each or self.end or self.counts:
            parts += "\x1c" + "\x1f".join((self.each, self.end, self.counts))
        return hashlib.sha256(parts.encode()).hexdigest()

    def cut(self, row: Mapping[str, Any], piece: Piece, cap: int | None) -> str:
        """A field's text; longer than `cap` characters it is cut at the side that may go."""
        value = row[piece.value]
        if not isinstance(value, str):
            return "".join(part.text for each in self.listed(value, cap) for part in each)
        if cap is not None and len(value) > cap:
            value = value[len(value) - cap :] if piece.value in self.keep_end else value[:cap]
        return value.strip() if piece.stripped else value

    def listed(self, texts: Sequence[str], cap: int | None) -> list[list[Piece]]:
        """How each text of a column of texts is shown: 一、first, then with a space before 二、,
        or as `each` says."""
        parsed = self._parsed(self.each or EACH)
        shown = []
        for i, text in enumerate(texts):
            numeral = NUMERALS[i] if i < len(NUMERALS) else str(i + 1)
            values = {"text": text[:cap], "numeral": numeral, "number": str(i)}
            pieces = [
                Piece("text", values[p.value].strip() if p.stripped else values[p.value])
                if p.kind == "field"
                else p
                for p in parsed
            ]
            shown.append([Piece("text", " ")] * (i > 0 and not self.each) + pieces)
        return shown

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
                field = piece.kind == "field"
                parts[at] += self.cut(row, piece, cap) if field else piece.text
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
        self._check_additions(kind)
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

    def _check_additions(self, kind: str) -> None:
        """Raise ValueError where `each`, `end` and `counts` do not fit the rest."""
        for piece in self._parsed(self.each):
            if piece.kind in ("option", "answer") or (
                piece.kind == "field" and piece.value not in ("text", "numeral", "number")
            ):
                raise ValueError(
                    f"template '{self.name}': 'each' may show {{text}}, {{numeral}} and {{number}},"
                    f" not {{{piece.value}}}"
                )
        if self.end and kind != "generate":
            raise ValueError(f"template '{self.name}': 'end' is for generated answers")
        text = kind == "generate" or self.own_scoring == "mean-nll"
        after = self.own_scoring == "mean-nll" and self.scores_in_prompt
        if not {"": True, "text": text, "after": after}.get(self.counts, False):
            raise ValueError(
                f"template '{self.name}': counts is '{self.counts}'; 'text' is for generated "
                "answers and scoring mean-nll, 'after' for an {option} scored by mean-nll"
            )
