"""Make the sample data of KBQA (open-domain question answering) that ships with cpm-tune.

Generally known facts (kbqa_facts.json), each asked for in six ways that were composed for this
project. Code: Apache-2.0 with the project; data: CC0-1.0.

No question is in two splits, but most facts are: what is learnt is to give an answer seen with
another wording, as closed-book answering needs. Facts that occur in dev or test alone cannot be
learnt here. NLPCC has no dev split; this sample has one.

Scores on it show that the harness runs and that a model learns; they are NOT comparable with scores
on the real KBQA.

Regenerate: `python tasks/sample/make_kbqa.py [FOLDER]`.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from splits import HERE, draw, write_lines

FACTS = [
    (subject, relation["predicate"], answer, asked.format(s=subject))
    for relation in json.loads((HERE / "kbqa_facts.json").read_text(encoding="utf-8"))
    for subject, answer in relation["facts"].items()
    for asked in relation["asks"]
]


def make(drawn: random.Random) -> tuple[str, tuple[str, str, str, str]]:
    """A fact with a question, which is the key."""
    fact = drawn.choice(FACTS)
    return fact[-1], fact


def lines(facts: list[tuple[str, str, str, str]]) -> Iterator[str]:
    """The lines of an official file, in lower case as they are."""
    for number, (subject, predicate, answer, question) in enumerate(facts, start=1):
        yield f"<question id={number}>\t{question.lower()}"
        yield f"<triple id={number}>\t{subject.lower()} ||| {predicate} ||| {answer}"
        yield f"<answer id={number}>\t{answer}"
        yield "=" * 50


def main(folder: Path) -> None:
    """Write the official files into a folder."""
    splits = draw("kbqa", make)
    named = {f"sample.kbqa.{split}": lines(facts) for split, facts in splits.items()}
    write_lines(folder, named, ending="")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "kbqa")
