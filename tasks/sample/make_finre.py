"""Makes the sample data of finre: lines of financial news about two companies, in CUGE's form.

Every sentence was composed for this project (code: Apache-2.0, data: CC0-1.0): patterns for the 44
relations (section "finre" of words_words.json) with made-up company names; any likeness to a real
one is chance. Numbers are <N>, as in the real data. A directed relation is asked for in either
direction, active and passive, so that neither the verb nor the order of the names is enough; "no
relation" comes from news that only lists companies, and from a third company in news of any
relation. The shares of the relations follow the real data roughly. No sentence is in two splits.

Scores on it show that the harness runs and that a model learns; they are NOT comparable with scores
on the real FinRE.

Regenerate: `python tasks/sample/make_finre.py`.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

from splits import HERE, draw, write_jsonl
from words import choose, material

FINRE = material("finre")
NONE = "NA"
THIRD = 0.35  # of the sentences with a third company: how many ask for it
KINDS = [
    kind
    for section in ("relations", "directed")
    for kind, (weight, _) in FINRE[section].items()
    for _ in range(2 * weight if section == "directed" else weight)
]


def make(drawn: random.Random) -> tuple[str, Any]:
    """A sentence as key, and CUGE's record of it."""
    kind = choose(drawn, KINDS)
    directed = kind in FINRE["directed"]
    pattern = choose(drawn, FINRE["directed" if directed else "relations"][kind][1])
    names = _names(drawn)
    if "{P}" in pattern:
        names["B"] = names["P"]
        pattern = pattern.replace("{P}", "{B}")
    manner = "deal" if kind in FINRE["deals"] else "static" if kind in FINRE["statics"] else "event"
    openers, closers = FINRE["openers"][manner], FINRE["closers"][manner]
    pattern = choose(drawn, openers) + pattern + choose(drawn, closers)
    text, at = _written(pattern, names)
    head, tail = ("F", "A") if "F" in at else ("A", "B")
    relation, _, reverse = kind.partition(" ")
    if drawn.random() < 0.5:
        head, tail, relation = tail, head, reverse or relation
    if "C" in at and drawn.random() < THIRD:
        head, tail, relation = *((head, "C") if drawn.random() < 0.5 else ("C", tail)), NONE
    return text, {
        "text": text,
        "label": FINRE["numbers"].index(relation),
        "label_desc": "N/A" if relation == NONE else relation,
        "head": {"mention": names[head], "start": at[head], "end": at[head] + len(names[head])},
        "tail": {"mention": names[tail], "start": at[tail], "end": at[tail] + len(names[tail])},
    }


def _names(drawn: random.Random) -> dict[str, str]:
    """Three companies A, B, C, the full name F of A, and a product P."""
    prefixes: list[str] = []
    while len(prefixes) < 3:
        prefix = choose(drawn, FINRE["prefixes"])
        prefixes += [prefix] if prefix not in prefixes else []
    names = {
        key: prefix + choose(drawn, FINRE["suffixes"])
        for key, prefix in zip("ABC", prefixes, strict=True)
    }
    return {**names, "F": f"{names['A']}股份有限公司", "P": choose(drawn, FINRE["products"])}


def _written(pattern: str, names: dict[str, str]) -> tuple[str, dict[str, int]]:
    """The sentence, and where each name begins."""
    text, at = "", dict[str, int]()
    for piece in re.findall(r"\{\w\}|[^{}]+", pattern):
        if piece.startswith("{"):
            at[piece[1]] = len(text)
            piece = names[piece[1]]
        text += piece
    return text, at


def write(out: Path) -> None:
    """Write the three files below `out`/finre."""
    splits = draw("finre", make)
    numbered = {s: [{"id": i, **row} for i, row in enumerate(rows)] for s, rows in splits.items()}
    write_jsonl(out / "finre", numbered)


if __name__ == "__main__":
    write(HERE)
