"""Fills frames, sentences with slots in braces, for the sample data. Used by make_*.py."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

Slots = Mapping[str, Any]


def pick(drawn: random.Random, choices: Any) -> Any:
    """One of a list; a number of a range; anything else is taken as it is."""
    return drawn.choice(choices) if isinstance(choices, list | range) else choices


def values(drawn: random.Random, slots: Slots) -> dict[str, Any]:
    """A value for every slot. A slot called "a+b" has pairs and fills a and b."""
    filled: dict[str, Any] = {}
    for names, choices in slots.items():
        value = pick(drawn, choices)
        if "+" in names:
            filled.update(zip(names.split("+"), value, strict=True))
        else:
            filled[names] = value
    return filled


def some(drawn: random.Random, sentences: Sequence[str], n: int) -> list[str]:
    """`n` of the sentences in any order."""
    return drawn.sample(list(sentences), min(n, len(sentences)))
