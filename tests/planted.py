"""Data sets with one planted fault each, for shortcut controls and overlap checks."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]
SIZES = {"train": 1500, "dev": 200, "test": 800}
_SIGNS = [chr(0x4E00 + number) for number in range(2500)]
_CUES = [chr(0x7E00 + number) for number in range(40)]


def sentence(drawn: random.Random, least: int = 8, most: int = 20) -> str:
    """Characters that have nothing to do with one another."""
    return "".join(drawn.choices(_SIGNS, k=drawn.randint(least, most)))


def _pairs(drawn: random.Random, n: int) -> Rows:
    return [
        {"sentence1": sentence(drawn), "sentence2": sentence(drawn), "label": drawn.randint(0, 1)}
        for _ in range(n)
    ]


def clean(drawn: random.Random) -> Iterator[tuple[str, Rows]]:
    """Questions with labels that nothing tells."""
    for split, n in SIZES.items():
        yield split, _pairs(drawn, n)


def length(drawn: random.Random) -> Iterator[tuple[str, Rows]]:
    """A pair with label 1 has the longer second question."""
    for split, rows in clean(drawn):
        for row in rows:
            bounds = (14, 20) if row["label"] else (8, 13)
            row["sentence2"] = sentence(drawn, *bounds)
        yield split, rows


def shared(drawn: random.Random) -> Iterator[tuple[str, Rows]]:
    """A third of test has a question of train in it, with a label of its own."""
    train: Rows = []
    for split, rows in clean(drawn):
        train = train or rows
        if split == "test":
            for row in rows[::3]:
                row["sentence1"] = drawn.choice(train)["sentence2"]
        yield split, rows


def repeated(drawn: random.Random) -> Iterator[tuple[str, Rows]]:
    """Of test 40 rows are rows of train: as they are, with other punctuation, or with one
    character changed; and 10 rows of train stand there again with the other label."""
    train: Rows = []
    for split, rows in clean(drawn):
        if not train:
            train = rows
            for k in range(10):
                rows[500 + k] = {**rows[k], "label": 1 - rows[k]["label"]}
        if split == "test":
            for k in range(40):
                rows[k] = dict(train[100 + k])
                if 10 <= k < 20:
                    rows[k]["sentence1"] = f" {rows[k]['sentence1']}？！"
                elif k >= 20:
                    rows[k]["sentence1"] += sentence(drawn, 1, 1)
                    rows[k]["sentence2"] += sentence(drawn, 1, 1)
        yield split, rows


def option_alone(drawn: random.Random) -> Iterator[tuple[str, Rows]]:
    """Four lines of verse; the right one alone has characters of a kind."""
    for split, n in SIZES.items():
        rows: Rows = []
        for _ in range(n):
            choices, answer = [sentence(drawn, 7, 7) for _ in range(4)], drawn.randrange(4)
            choices[answer] = drawn.choice(_CUES) + choices[answer][1:]
            rows.append(
                {"translation": sentence(drawn, 20, 30), "choices": choices, "answer": answer}
            )
        yield split, rows


Plant = Callable[[random.Random], Iterator[tuple[str, Rows]]]
TASKS: dict[Plant, str] = {
    **dict.fromkeys((clean, length, shared, repeated), "lcqmc"),
    option_alone: "ccpm",
}


def write(plant: Plant, folder: Path, seed: int = 1) -> Path:
    """Write a data set to a folder, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in plant(random.Random(seed)):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder
