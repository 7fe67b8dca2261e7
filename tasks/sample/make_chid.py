"""Make the sample data of ChID (idiom cloze) that ships with cpm-tune.

A passage tells a situation and closes with a remark that has a blank for the idiom; the remarks are
the same for all idioms, so the situation decides. A record has two or three passages (now and then
two of them in one text) that share ten candidates, as in the competition; answers are in a file
beside. No candidate is among those that could stand for another one of the record ("alike" in
chid_idioms.json). The 54 idioms are common knowledge; their five situations each were composed for
this project. Code: Apache-2.0 with the project; data: CC0-1.0.

The place of the right candidate is drawn, candidates are drawn evenly; splits share situations and
remarks, but no passage.

Scores on it show that the harness runs and that a model learns; they are NOT comparable with scores
on the real ChID.

Regenerate: `python tasks/sample/make_chid.py [FOLDER]`.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from splits import HERE, draw, write_jsonl

WORDS = json.loads((HERE / "chid_idioms.json").read_text(encoding="utf-8"))
SITUATIONS: dict[str, list[str]] = dict(WORDS["idioms"])
ALIKE = [set(group.split()) for group in WORDS["alike"]]
CANDIDATES = 10
JOINED = 0.2  # of the records: all passages in one text


def make(drawn: random.Random) -> tuple[tuple[str, str], tuple[str, str]]:
    """A passage with {b} for its blank, and its idiom."""
    idiom = drawn.choice(sorted(SITUATIONS))
    passage = drawn.choice(SITUATIONS[idiom]) + drawn.choice(WORDS["asides"])
    return (idiom, passage), (passage, idiom)


def apart(idiom: str, others: list[str]) -> bool:
    """Whether an idiom can stand beside others without a doubt which one is right."""
    return idiom not in others and not any(
        idiom in group and group.intersection(others) for group in ALIKE
    )


def record(
    drawn: random.Random, passages: list[tuple[str, str]], numbers: Iterator[int]
) -> tuple[dict[str, Any], dict[str, int]]:
    """Two or three passages from the end of the list as an official record, and its answers."""
    size = drawn.choice((2, 3))
    taken: list[tuple[str, str]] = []
    for passage in reversed(passages[:]):
        if len(taken) < size and apart(passage[1], [idiom for _, idiom in taken]):
            taken.append(passage)
            passages.remove(passage)
    candidates = [idiom for _, idiom in taken]
    for idiom in drawn.sample(sorted(SITUATIONS), len(SITUATIONS)):
        if len(candidates) < CANDIDATES and apart(idiom, candidates):
            candidates.append(idiom)
    drawn.shuffle(candidates)
    content, answers = [], {}
    for told, idiom in taken:
        tag = f"#idiom{next(numbers):06}#"
        content.append(told.format(b=tag))
        answers[tag] = candidates.index(idiom)
    if drawn.random() < JOINED:
        content = ["".join(content)]
    return {"content": content, "candidates": candidates}, answers


def main(folder: Path) -> None:
    """Write the official files of the competition (as CLUE names them) into a folder."""
    drawn, numbers = random.Random("chid sample records"), count()
    for split, passages in draw("chid", make).items():
        records, answers = [], {}
        while passages:
            made, right = record(drawn, passages, numbers)
            records.append(made)
            answers.update(right)
        write_jsonl(folder, {split: records})
        (folder / f"{split}.jsonl").replace(folder / f"{split}.json")
        lines = ",\n".join(f'"{tag}": {number}' for tag, number in answers.items())
        file = folder / f"{split}_answer.json"
        file.write_text("{" + lines + "}\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "chid")
