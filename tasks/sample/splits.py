"""Draws rows for the sample data and writes them as splits without overlap. Used by make_*.py."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SIZES = {"train": 600, "dev": 150, "test": 200}


def draw(
    name: str,
    make: Callable[[random.Random], tuple[Hashable, Any]],
    sizes: Mapping[str, int] = SIZES,
) -> dict[str, list[Any]]:
    """Draw records until every split is full; the seed is the task's name.

    `make` returns a key and a record. A key stands for what makes a row itself (a sentence, a set
    of facts): none occurs twice, in one split or in two.
    """
    drawn = random.Random(f"{name} sample data")
    seen: set[Hashable] = set()
    result: dict[str, list[Any]] = {}
    for split, size in sizes.items():
        result[split] = []
        for _ in range(1000 * size):
            key, record = make(drawn)
            if key not in seen:
                seen.add(key)
                result[split].append(record)
            if len(result[split]) == size:
                break
        else:
            raise ValueError(f"{name}: only {len(result[split])} different rows for {split}")
    return result


def write_jsonl(folder: Path, splits: Mapping[str, list[Any]]) -> None:
    """Write SPLIT.jsonl files, one record a line."""
    write_lines(folder, {s: (_json(record) for record in rows) for s, rows in splits.items()})


def write_lines(folder: Path, splits: Mapping[str, Iterator[str]], ending: str = ".jsonl") -> None:
    """Write SPLIT + ending files of the given lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, lines in splits.items():
        text = "".join(line + "\n" for line in lines)
        (folder / f"{split}{ending}").write_text(text, encoding="utf-8", newline="\n")


def _json(record: Any) -> str:
    return json.dumps(record, ensure_ascii=False)
