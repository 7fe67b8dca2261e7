"""Seeded cases for the metrics that equal a public scorer, and what that scorer gave for them.

The scorers were run once on the cases, and their numbers written down here and in the tests; their
code is not part of this repository.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from cpm_tune.metrics.edits import edits

CHARACTERS = [chr(0x4E00 + i) for i in range(400)]
MARKS = "我你他的了是在有不人这中大来上个国到说们为子和，。"


def corrections(n: int, seed: int, rate: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Noisy corrections with their targets: one to five annotators, each with own changes."""
    source = random.Random(seed)
    for _ in range(n):
        text = "".join(source.choices(MARKS, k=source.randint(4, 22)))
        golds = [_changed(text, rate, source) or text for _ in range(source.randint(1, 5))]
        base = source.choice([text, *golds])
        predicted = _changed(base, rate / 2, source) or text
        each = [[list(e) for e in edits(text, gold)] for gold in dict.fromkeys(golds)]
        yield predicted, {"source": text, "edits": each}


def _changed(text: str, rate: float, source: random.Random) -> str:
    """Characters dropped, replaced by one or two, or followed by another, each as often."""
    parts = []
    for character in text:
        kind = source.random() * 4 / rate
        if kind < 1:
            continue
        if kind < 2:
            parts.append(source.choice(MARKS))
        elif kind < 3:
            parts.append(character + source.choice(MARKS))
        elif kind < 4:
            parts.append(source.choice(MARKS) + source.choice(MARKS))
        else:
            parts.append(character)
    return "".join(parts)


def segmentations(n: int, seed: int, rate: float) -> Iterator[tuple[list[str], list[str]]]:
    """Lines of one to four sentences in words, and the same characters cut otherwise: every place
    between two characters is a cut, or none, against the gold line with probability `rate`; so
    words are joined over the ends of sentences as well."""
    source = random.Random(seed)
    for _ in range(n):
        words: list[str] = []
        for _ in range(source.randint(1, 4)):
            lengths = source.choices([1, 2, 3, 4], [5, 5, 1, 1], k=source.randint(2, 14))
            words += ["".join(source.choices(CHARACTERS, k=k)) for k in lengths]
            words.append(source.choice("。！？；"))
        cuts, end = set(), 0
        for word in words:
            end += len(word)
            cuts.add(end)
        cuts ^= {place for place in range(1, end) if source.random() < rate}
        text, places = "".join(words), sorted(cuts)
        yield words, [text[a:b] for a, b in zip([0, *places], places, strict=False)]


def spaced_texts(n: int, seed: int, rate: float) -> tuple[list[str], list[str]]:
    """Generated texts and their references, many with spaces at their ends."""
    source, predictions, references = random.Random(seed), [], []
    for predicted, target in corrections(n, seed, rate):
        start, end = source.choice(["", " ", "  "]), source.choice(["", " "])
        predictions.append(start + predicted + end)
        references.append(source.choice(["", " "]) + target["source"])
    return predictions, references
