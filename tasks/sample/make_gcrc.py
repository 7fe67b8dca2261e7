"""Make the sample data of GCRC (exam reading comprehension) and gcrc_evidence that ship with
cpm-tune.

A passage tells four facts out of the six of its topic (gcrc_texts.json), each with a value drawn
from a list; an option claims one of the facts in other words, truly or with another value of the
list. Half of the questions ask for the one true option among false ones, half for the one false
option among true ones. An option's evidence is the sentence that tells its fact. All of it was
composed for this project. Code: Apache-2.0 with the project; data: CC0-1.0.

Values and letters are drawn, so nothing but the passage decides. As in the real data only some
training questions have evidences; gcrc_evidence has a smaller set in which all have them.

Scores on it show that the harness runs and that a model learns; they are NOT comparable with scores
on the real GCRC.

Regenerate: `python tasks/sample/make_gcrc.py [FOLDER]`, which gets gcrc/ and gcrc_evidence/.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splits import HERE, draw

WORDS = json.loads((HERE / "gcrc_texts.json").read_text(encoding="utf-8"))
SIZES = {
    "gcrc": {"train": 400, "dev": 100, "test": 120},
    "gcrc_evidence": {"train": 120, "dev": 30, "test": 40},
}
EXPLAINED = 3  # of the training questions every third has evidences and error types


def make(drawn: random.Random) -> tuple[str, dict[str, Any]]:
    """A record but for its id; its key is the passage."""
    text = drawn.choice(WORDS["texts"])
    facts = sorted(drawn.sample(range(len(text["facts"])), 4))
    wanted = drawn.choice(("right", "wrong"))
    answer = drawn.randrange(4)
    told, by_fact = [text["open"]], []
    for fact in (text["facts"][n] for n in facts):
        value, other = drawn.sample(fact["values"], 2)
        told.append(fact["says"].format(v=value))
        by_fact.append((fact, value, other, told[-1]))
    drawn.shuffle(by_fact)
    options, evidences, errors = [], [], []
    for i, (fact, value, other, sentence) in enumerate(by_fact):
        true = (i == answer) == (wanted == "right")
        options.append(drawn.choice(fact["claims"]).format(v=value if true else other))
        evidences.append([sentence])
        errors.append("" if true else fact["error"])
    passage = "".join(told)
    return passage, {
        "title": text["title"],
        "passage": passage,
        "question": drawn.choice(WORDS["asks"][wanted]),
        "options": options,
        "evidences": evidences,
        "error_type": errors,
        "answer": "ABCD"[answer],
    }


def write(folder: Path, name: str, splits: Mapping[str, list[dict[str, Any]]]) -> None:
    """Write {"data": [...]} documents, a record on a line."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        lines = []
        for n, row in enumerate(rows):
            bare: dict[str, list[str]] = {"evidences": [], "error_type": []}
            explained = name == "gcrc_evidence" or split != "train" or n % EXPLAINED == 0
            record = {"id": f"{split}_{n}", **row, **({} if explained else bare)}
            lines.append(json.dumps(record, ensure_ascii=False))
        text = '{"data": [\n' + ",\n".join(lines) + "\n]}\n"
        file = folder / f"{'valid' if split == 'dev' else split}.json"
        file.write_text(text, encoding="utf-8", newline="\n")


def main(folder: Path) -> None:
    """Write the official files of both tasks into folders of their own."""
    for name, sizes in SIZES.items():
        write(folder / name, name, draw(name, make, sizes))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
