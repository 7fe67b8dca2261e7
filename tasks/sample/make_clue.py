"""Make the sample data of OCNLI, TNEWS and IFLYTEK (of CLUE) that ships with cpm-tune.

Titles, descriptions and pairs are put together from the phrases in clue_words.json, all composed
for this project. Code: Apache-2.0 with the project; data: CC0-1.0. The labels are the real ones'
(IFLYTEK: 15 of 119). Splits share phrases, but no text.

Scores on it show that the harness runs and that a model learns; they are NOT comparable with scores
on the real datasets.

Regenerate: `python tasks/sample/make_clue.py [FOLDER]`.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from splits import HERE, draw, write_lines

WORDS = json.loads((HERE / "clue_words.json").read_text(encoding="utf-8"))


def title(drawn: random.Random) -> tuple[str, dict[str, str]]:
    """A title and its subject."""
    label, words = drawn.choice(list(WORDS["news"].items()))
    text = drawn.choice(WORDS["titles"]).format(
        who=drawn.choice(words["who"]),
        what=drawn.choice(words["what"]),
        place=drawn.choice(WORDS["places"]),
        end=drawn.choice(WORDS["ends"]),
    )
    return text, {"label": label, "sentence": text}


def description(drawn: random.Random) -> tuple[str, dict[str, str]]:
    """An app's description and its kind."""
    label, functions = drawn.choice(list(WORDS["apps"].items()))
    a, b, c = drawn.sample(functions, 3)
    text = drawn.choice(WORDS["descriptions"]).format(
        a=a, b=b, c=c, who=drawn.choice(WORDS["users"]), end=drawn.choice(WORDS["praise"])
    )
    return text, {"label": label, "sentence": text}


def pair(drawn: random.Random) -> tuple[tuple[str, str], dict[str, str]]:
    """A premise, a hypothesis and how they relate."""
    words = WORDS["pairs"]
    fact, who = drawn.choice(words["facts"]), drawn.choice(words["who"])
    label = drawn.choice(("entailment", "neutral", "contradiction"))
    premise = drawn.choice(words["frames"]).format(w=who, f=drawn.choice(fact["say"]))
    hypothesis = who + drawn.choice(fact[label])
    record = {"sentence1": premise, "sentence2": hypothesis, "label": label}
    return (premise, hypothesis), record


MAKERS = {"tnews": title, "iflytek": description, "ocnli": pair}
SIZES = {"train": 400, "dev": 100, "test": 120}


def main(folder: Path) -> None:
    """Write the official files into a folder per dataset."""
    for name, make in MAKERS.items():
        splits = draw(name, make, SIZES)
        lines = {
            split: (json.dumps(record, ensure_ascii=False) for record in records)
            for split, records in splits.items()
        }
        write_lines(folder / name, lines, ".json")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
