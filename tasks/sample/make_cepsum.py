"""Make the sample data of CEPSUM (recommendations of products) that ships with cpm-tune.

A product's table has its name and four or five properties; its description explains three of them
among sentences about service, which no recommendation repeats. Both references name these three,
each in its own words and order. No first reference occurs twice. Every sentence was composed for
this project; the wordings are in cepsum_words.json. Code: Apache-2.0 with the project; data:
CC0-1.0. Scores on it are NOT comparable with scores on the real CEPSUM.

Regenerate: `python tasks/sample/make_cepsum.py`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from frames import some
from splits import HERE, draw, write_jsonl

SIZES = {"train": 400, "dev": 100, "test": 150}
WORDS = json.loads((HERE / "cepsum_words.json").read_text(encoding="utf-8"))
SERVICE = [
    "现在下单，一般两天之内就能送到。",
    "如果不满意，七天之内可以退货。",
    "包装里还有一份简单的说明书。",
    "客服每天从早上九点到晚上十点在线。",
    "收到后请先检查外包装有没有破损。",
    "购买时记得留下准确的地址和电话。",
]


def make(drawn: random.Random) -> tuple[Hashable, Any]:
    """A product with its two references; the first of them makes the row."""
    noun = drawn.choice(list(WORDS["products"]))
    product = WORDS["products"][noun]
    known = {**WORDS["shared"][product["shared"]], **product["own"]}
    names = some(drawn, list(known), drawn.randint(4, 5))
    table = {name: drawn.choice(list(known[name])) for name in names}
    described = some(drawn, names, 3)
    told = [known[name][table[name]][0] + "。" for name in described]
    for sentence in some(drawn, SERVICE, drawn.randint(1, 2)):
        told.insert(drawn.randint(0, len(told)), sentence)
    targets = [
        f"{noun}，{'，'.join(known[name][table[name]][number] for name in order)}。"
        for number, order in ((1, described), (2, some(drawn, described, 3)))
    ]
    record = {"table": {"商品": noun, **table}, "source": "".join(told), "targets": targets}
    return targets[0], record


def main(out: Path = HERE) -> None:
    """Write the three files below `out`/cepsum."""
    write_jsonl(out / "cepsum", draw("cepsum", make, SIZES))


if __name__ == "__main__":
    main()
