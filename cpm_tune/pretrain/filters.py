"""The rules that documents have to pass, and the reason that each gives for removing one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from cpm_tune.errors import UserError

NGRAM = 5
LOST = "\ufffd"
_MISSING = LOST + "\u25a1\u25a0"  # decoding errors, and boxes in place of lost characters
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]+")
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


@dataclass(frozen=True)
class Rules:
    """Limits for documents. Shares are of the characters that are not white space.

    min_chars, max_chars: length. min_han: share of Chinese characters among letters and digits of
    the document; min_line_han: the same per line; lines below it are dropped first.
    max_repetition: share of 5-character sequences that occur earlier in the document.
    max_control: share of control, private-use and lost characters. Raises pydantic's
    ValidationError for a value that is out of range or not a number.
    """

    min_chars: Number = 16
    max_chars: Number = 1_000_000
    min_han: Share = 0.5
    min_line_han: Share = 0.0
    max_repetition: Share = 0.6
    max_control: Share = 0.0


REASONS = {  # why a document is dropped, and by which rule
    "too short": "min_chars",
    "too long": "max_chars",
    "little Chinese": "min_han",
    "repetition": "max_repetition",
    "control characters": "max_control",
}
SENSITIVE, PERPLEXITY = "sensitive word", "perplexity"


def is_han(character: str) -> bool:
    """Whether a character is a Chinese ideograph (base plane)."""
    return _HAN.fullmatch(character) is not None


def han_share(text: str) -> float:
    """Share of Chinese characters among letters and digits; 0 without any."""
    letters = sum(map(str.isalnum, text))
    return sum(map(len, _HAN.findall(text))) / letters if letters else 0.0


def repetition(text: str) -> float:
    """Share of the text's 5-character sequences that occur earlier in it."""
    total = len(text) - NGRAM + 1
    if total < 1:
        return 0.0
    return 1 - len({text[i : i + NGRAM] for i in range(total)}) / total


@cache
def _lost(character: str) -> bool:
    if character in _MISSING:
        return True
    return unicodedata.category(character) in ("Cc", "Co", "Cs", "Cn") and not character.isspace()


def clean(text: str, rules: Rules) -> str:
    """Strip lines, drop empty ones and those under `min_line_han`."""
    least = rules.min_line_han
    lines = (line.strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line and (not least or han_share(line) >= least))


def reason_to_drop(text: str, rules: Rules) -> str | None:
    """Return a key of REASONS, or None if the (cleaned) document may stay."""
    n = sum(map(len, text.split()))
    if n < rules.min_chars:
        return "too short"
    if n > rules.max_chars:
        return "too long"
    if han_share(text) < rules.min_han:
        return "little Chinese"
    if repetition(text) > rules.max_repetition:
        return "repetition"
    if sum(map(_lost, text)) > rules.max_control * n:
        return "control characters"
    return None


class WordList:
    """A user's list of words, one per line; a document with any of them is dropped."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = {word.strip() for word in words} - {""}
        self.lengths = sorted(set(map(len, self.words)))

    @classmethod
    def from_file(cls, path: Path) -> WordList:
        """Read a list; raise UserError if it is unreadable or empty."""
        try:
            result = cls(path.read_text(encoding="utf-8-sig").split("\n"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not a readable word list ({error}).") from error
        if not result.words:
            raise UserError(f"{path} contains no words, expected one per line.")
        return result

    def occur_in(self, text: str) -> bool:
        """Whether any word occurs; time is text length times the number of word lengths."""
        return any(
            text[i : i + n] in self.words for n in self.lengths for i in range(len(text) - n + 1)
        )
