"""Word lists and templates of words_words.json, and how they are filled in. Used by make_*.py."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from splits import write_lines

HERE = Path(__file__).resolve().parent
T = TypeVar("T")


def material(name: str) -> Any:
    """A section of words_words.json; slots given in parts become all their combinations."""

    def combined(value: dict[str, Any]) -> Any:
        return ["".join(parts) for parts in product(*value["parts"])] if "parts" in value else value

    text = (HERE / "words_words.json").read_text(encoding="utf-8")
    return json.loads(text, object_hook=combined)[name]


def choose(drawn: random.Random, items: Sequence[T]) -> T:
    """One of the items; only `random()` is used, whose stream Python keeps stable."""
    return items[int(drawn.random() * len(items))]


def fill(template: str, slots: Mapping[str, Sequence[str]], drawn: random.Random) -> str:
    """The template with a word in every {slot}; a word does not come twice."""
    used: set[str] = set()

    def word(match: re.Match[str]) -> str:
        chosen = choose(drawn, [w for w in slots[match[1]] if w not in used])
        used.add(chosen)
        return chosen

    return re.sub(r"\{(\w+)\}", word, template)


def pick(slots: Mapping[str, Sequence[str]], drawn: random.Random) -> dict[str, str]:
    """One word for every slot; the parts of "a|b" are also there as slot0 and slot1."""
    picked: dict[str, str] = {}
    for name, words in slots.items():
        picked[name] = choose(drawn, words)
        picked |= {f"{name}{i}": part for i, part in enumerate(picked[name].split("|"))}
    return picked


def write_compact(folder: Path, splits: Mapping[str, Sequence[Any]]) -> None:
    """Write SPLIT.jsonl files without blanks between the parts of a record."""
    lines = {
        split: (json.dumps(r, ensure_ascii=False, separators=(",", ":")) for r in records)
        for split, records in splits.items()
    }
    write_lines(folder, lines)
