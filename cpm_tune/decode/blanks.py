"""Texts with blanks: 今天____，我们去____{2-3}。 Pure text, no model.

A blank is two or more underscores. In braces behind it stands how many tokens fill it, or from how
many to how many; without them the default holds. The backbone is told where its holes are, so every
choice of lengths is a sequence of its own, and all of them are tried.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from cpm_tune.common.sizes import counted, shortened
from cpm_tune.errors import UserError

MOST_LAYOUTS = 512
_BLANK = re.compile(r"[_＿]{2,}(?:\{([^{}]*)\})?")


@dataclass(frozen=True)
class Blanks:
    """The given pieces of a text, one more than its blanks, and each blank's possible lengths."""

    pieces: tuple[str, ...]
    lengths: tuple[range, ...]

    def layouts(self) -> Iterator[tuple[int, ...]]:
        """Every choice of lengths, the shortest blanks first."""
        return itertools.product(*self.lengths)

    def filled(self, fills: tuple[str, ...]) -> str:
        """The text with its blanks filled."""
        return self.pieces[0] + "".join(map("".join, zip(fills, self.pieces[1:], strict=True)))


def parse_blanks(text: str, where: str, default: range) -> Blanks:
    """Find a text's blanks; raise UserError where there are none, or more ways to fill them than
    can be tried."""
    pieces, lengths, start = [], [], 0
    for found in _BLANK.finditer(text):
        pieces.append(text[start : found.start()])
        lengths.append(default if found[1] is None else parse_lengths(found[1], where))
        start = found.end()
    if not lengths:
        raise UserError(
            f"{where}: there is no blank in '{shortened(text)}'; write ____ where one is."
        )
    if (n := math.prod(map(len, lengths))) > MOST_LAYOUTS:
        raise UserError(
            f"{where}: {n:,} choices of lengths for {counted(len(lengths), 'blank')}, more than "
            f"{MOST_LAYOUTS}; say how many tokens a blank has, such as ____{{2}} or ____{{2-3}}."
        )
    return Blanks((*pieces, text[start:]), tuple(lengths))


def parse_lengths(text: str, where: str) -> range:
    """'3' or '2-5' as a range of lengths; raise UserError for anything else."""
    found = re.fullmatch(r"\s*([0-9]{1,4})(?:\s*-\s*([0-9]{1,4}))?\s*", text)
    least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= least <= most:
        raise UserError(
            f"{where}: the length of a blank is '{shortened(text)}', expected a number of tokens "
            "such as 3, or 2-5."
        )
    return range(least, most + 1)
