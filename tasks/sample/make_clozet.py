"""Make the sample data of ClozeT (story cloze) that ships with cpm-tune.

A story opens with what somebody is about to do; the sentence taken out tells whether it was done
well or badly, and the rest what came of it. Each of the 21 stories in clozet_stories.json has two
openings, three sentences and two outcomes of either kind; all were composed for this project. Code:
Apache-2.0 with the project; data: CC0-1.0.

Every pair of a good and a bad sentence is right about as often the one way as the other: neither
sentence tells anything without the outcome. Splits share sentences, but no combination of opening,
pair and outcome.

Scores on it show that the harness runs and that a model learns; they are NOT comparable with scores
on the real ClozeT.

Regenerate: `python tasks/sample/make_clozet.py [FOLDER]`.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from splits import HERE, draw, write_jsonl

WORDS = json.loads((HERE / "clozet_stories.json").read_text(encoding="utf-8"))


def make(drawn: random.Random) -> tuple[tuple[str, ...], dict[str, str]]:
    """A row; its key is what it is made of, but for the name and the closing remark."""
    story = drawn.choice(WORDS["stories"])
    name, pronoun = drawn.choice(WORDS[story["who"]])
    way, other = drawn.choice((("well", "badly"), ("badly", "well")))
    opening, right, wrong, outcome = (
        drawn.choice(story[part]) for part in ("open", way, other, f"then_{way}")
    )
    told = opening + "<mask>" + outcome + drawn.choice(WORDS["ends"][way])
    plots = [right, wrong]
    drawn.shuffle(plots)
    record = {
        "story": told,
        "plot0": plots[0],
        "plot1": plots[1],
        "label": str(plots.index(right)),
    }
    said = {key: text.format(n=name, p=pronoun) for key, text in record.items()}
    return (opening, *sorted(plots), outcome), said


def main(folder: Path) -> None:
    """Write the official files into a folder."""
    splits = draw("clozet", make)
    write_jsonl(folder, {"train": splits["train"], "valid": splits["dev"], "test": splits["test"]})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "clozet")
