"""Texts with blanks: 今天____，我们去____{2-3}。 Pure text, no model.

A blank is two or more underscores. Braces after it give how many tokens fill it, or from how many
to how many; without them there is a default. A backbone that is given the masked positions tries
every choice of lengths, each a sequence of its own; one that is given a sentinel for each blank
writes as many tokens as it takes, within these bounds.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from cpm_tune.common.sizes import counted, shortened
from cpm_tune.errors import UserError

MOST_CHOICES = 512
_BLANK = re.compile(r"[_＿]{2,}(?:\{([^{}]*)\})?")


@dataclass(frozen=True)
class Blanks:
    """The given pieces of a text, one more than its blanks, and each blank's possible lengths."""

    pieces: tuple[str, ...]
    lengths: tuple[range, ...]

    def choices(self) -> Iterator[tuple[int, ...]]:
        """Every choice of lengths, the shortest blanks first."""
        return itertools.product(*self.lengths)

    def filled(self, fills: tuple[str, ...]) -> str:
        """The text with its blanks filled."""
        return self.pieces[0] + "".join(map("".join, zip(fills, self.pieces[1:], strict=True)))


def parse_blanks(text: str, where: str, default: range, *, most: int | None = None) -> Blanks:
    """Find a text's blanks; raise UserError if there are none, or more than `most`, or without that
    more ways to fill them than can be tried."""
    pieces, lengths, start = [], [], 0
    for blank in _BLANK.finditer(text):
        pieces.append(text[start : blank.start()])
        lengths.append(default if blank[1] is None else parse_lengths(blank[1], where))
        start = blank.end()
    if not lengths:
        raise UserError(f"{where}: there is no blank in '{shortened(text)}'; write ____ for each.")
    if most is not None and len(lengths) > most:
        raise UserError(
            f"{where}: {counted(len(lengths), 'blank')}, but this backbone has sentinels for "
            f"{most}; fill fewer at a time."
        )
    if most is None and (n := math.prod(map(len, lengths))) > MOST_CHOICES:
        raise UserError(
            f"{where}: {n:,} choices of lengths for {counted(len(lengths), 'blank')}, more than "
            f"{MOST_CHOICES}; give the number of tokens of each, such as ____{{2}} or ____{{2-3}}."
        )
    return Blanks((*pieces, text[start:]), tuple(lengths))


def parse_lengths(text: str, where: str) -> range:
    """'3' or '2-5' as a range of lengths; raise UserError for anything else."""
    match = re.fullmatch(r"\s*([0-9]{1,4})(?:\s*-\s*([0-9]{1,4}))?\s*", text)
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= least <= most:
        raise UserError(
            f"{where}: the length of a blank is '{shortened(text)}', expected a number of tokens "
            "such as 3, or 2-5."
        )
    return range(least, most + 1)
