"""Equation accuracy: a generated equation is evaluated exactly and compared with the answer.

The evaluator reads arithmetic of whole numbers, decimals, percentages (40%), mixed numbers (3(1/2)
or 3((1)/(2)), as Math23K writes them), brackets () [] {}, + - * / and powers (^ or **), in ASCII,
full-width or printed characters (×, ÷, −). It is not Python's eval: length, depth and the size of
powers are bounded, and whatever it cannot read has no value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from cpm_tune.metrics.base import Metric
from cpm_tune.metrics.families import OURS, proportion

MAX_LENGTH = 200  # characters; the longest of 1,000 real equations has 41
MAX_DEPTH = 40  # brackets, signs and powers within one another
MAX_BITS = 4096  # of a power's numerator or denominator
TOLERANCE = Fraction(1, 10_000)

_PRINTED = {
    ord("×"): "*",
    ord("✕"): "*",
    ord("÷"): "/",
    ord("−"): "-",
    ord("【"): "[",
    ord("】"): "]",
}
_ASCII = {code + 0xFEE0: code for code in range(0x21, 0x7F)} | _PRINTED
_NAME = re.compile(r"\s*[xX]\s*=")
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<whole>[0-9]+)\((?:(?P<above>[0-9]+)/(?P<below>[0-9]+)
                        |\((?P<above2>[0-9]+)\)/\((?P<below2>[0-9]+)\))\)
    |(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)
    |(?P<sign>\*\*|[-+*/^%()\[\]{}])
    )\s*""",
    re.VERBOSE,
)
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def metrics() -> Iterator[Metric]:
    """Yield equation accuracy."""
    definition = (
        f"{OURS}|equation and answer as exact fractions|right if less than {float(TOLERANCE):g} "
        "from the answer, as GTS; no value: wrong"
    )
    yield proportion("equation_accuracy", "equation", definition, right)


def right(prediction: str | None, target: Any) -> bool:
    """Whether an equation's value is the answer: a text or {"answer": text}.

    Less than 1e-4 apart counts as equal, as in the scorer of GTS (Xie and Sun, IJCAI 2019) and its
    successors: recurring decimals are rounded in the data.
    """
    answer = evaluate(str(target["answer"] if isinstance(target, dict) else target))
    value = None if prediction is None else evaluate(prediction)
    if answer is None or value is None:
        return False
    return abs(value - answer) < TOLERANCE


def evaluate(text: str) -> Fraction | None:
    """The exact value of "x=44*20" or "44*20"; None if it cannot be read or is too large."""
    if len(text) > MAX_LENGTH:
        return None
    try:
        tokens = _tokens(_NAME.sub("", text.translate(_ASCII), count=1))
        return _Parser(tokens).value()
    except (ValueError, ZeroDivisionError):
        return None


def _tokens(text: str) -> list[Fraction | str]:
    tokens: list[Fraction | str] = []
    end = 0
    while end < len(text):
        match = _TOKEN.match(text, end)
        if not match:
            raise ValueError(f"not arithmetic: {text[end:]!r}")
        end = match.end()
        whole, above, below, above2, below2, number, sign = match.groups()
        if whole:
            tokens.append(int(whole) + Fraction(int(above or above2), int(below or below2)))
        else:
            tokens.append(sign or Fraction(number))
    return tokens


class _Parser:
    """Recursive descent; raises ValueError for what is not arithmetic, or too deep or large."""

    def __init__(self, tokens: list[Fraction | str]) -> None:
        self.tokens: list[Fraction | str | None] = [*tokens, None]
        self.at = 0
        self.depth = 0

    def value(self) -> Fraction:
        value = self.sum()
        if self.tokens[self.at] is not None:
            raise ValueError(f"unexpected {self.tokens[self.at]}")
        return value

    def take(self, *signs: str) -> str | None:
        """The next token if it is one of these signs, which is then used up."""
        token = self.tokens[self.at]
        if not isinstance(token, str) or token not in signs:
            return None
        self.at += 1
        return token

    def within(self, part: Callable[[], Fraction]) -> Fraction:
        """Parse a part one level deeper."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError("too deep")
        value = part()
        self.depth -= 1
        return value

    def sum(self) -> Fraction:
        value = self.product()
        while sign := self.take("+", "-"):
            term = self.product()
            value = value + term if sign == "+" else value - term
        return value

    def product(self) -> Fraction:
        value = self.signed()
        while sign := self.take("*", "/"):
            factor = self.signed()
            value = value * factor if sign == "*" else value / factor
        return value

    def signed(self) -> Fraction:
        sign = self.take("+", "-")
        if not sign:
            return self.power()
        value = self.within(self.signed)
        return -value if sign == "-" else value

    def power(self) -> Fraction:
        base = self.percentage()
        if not self.take("^", "**"):
            return base
        return _power(base, self.within(self.signed))

    def percentage(self) -> Fraction:
        value = self.atom()
        return value / 100 if self.take("%") else value

    def atom(self) -> Fraction:
        token = self.tokens[self.at]
        if isinstance(token, Fraction):
            self.at += 1
            return token
        bracket = self.take(*_CLOSING)
        if not bracket:
            raise ValueError(f"expected a number, found {token}")
        value = self.within(self.sum)
        if not self.take(_CLOSING[bracket]):
            raise ValueError(f"'{bracket}' is not closed")
        return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if exponent.denominator != 1 or bits * abs(exponent) > MAX_BITS:
        raise ValueError("a power that is not whole, or too large")
    return Fraction(base**exponent.numerator)
