"""Make the sample data of Sogou-Log (document retrieval) that ships with cpm-tune.

A query asks for one of the wants about one of the things of a domain (sogou_log_words.json), in one
of three wordings; a relevant title answers the same want about the same thing in other words. Of
eight irrelevant titles four are about the thing but answer another want, two answer the want about
another thing, two are of another domain: thing and want have to be right, and neither alone tells.
Everything was composed for this project. Code: Apache-2.0 with the project; data: CC0-1.0.

Train and dev are pairs; a test query has ten titles in random order, two of them relevant, with the
field "relevance" that the official test file lacks. No query is in two splits; titles may be.

Scores on it show that the harness runs and that a model learns; they are NOT comparable with scores
on the real Sogou-Log.

Regenerate: `python tasks/sample/make_sogou_log.py [FOLDER]`.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

from splits import HERE, draw, write_jsonl

WORDS = json.loads((HERE / "sogou_log_words.json").read_text(encoding="utf-8"))
SIZES = {"train": 600, "dev": 150, "test": 120}


def make(drawn: random.Random) -> tuple[str, tuple[str, list[str], list[str]]]:
    """A query, which is the key, two relevant titles and eight others."""
    domain = drawn.choice(WORDS["domains"])
    thing = drawn.choice(domain["things"])
    wants = drawn.sample(domain["wants"], len(domain["wants"]))
    queries, answers = wants[0]
    others = drawn.sample([other for other in domain["things"] if other != thing], 2)
    elsewhere = drawn.sample([other for other in WORDS["domains"] if other is not domain], 2)
    frames = [(title, thing) for title in drawn.sample(answers, 2)]
    frames += [(drawn.choice(titles), thing) for _, titles in wants[1:5]]
    frames += [(drawn.choice(answers), other) for other in others]
    for other in elsewhere:
        frames.append(
            (drawn.choice(drawn.choice(other["wants"])[1]), drawn.choice(other["things"]))
        )
    titles = [title.format(t=about) + drawn.choice(WORDS["sites"]) for title, about in frames]
    wrong = titles[2:]
    drawn.shuffle(wrong)
    query = drawn.choice(queries).format(t=thing)
    return query, (query, titles[:2], wrong)


def documents(drawn: random.Random, right: list[str], wrong: list[str]) -> list[dict[str, Any]]:
    """The graded titles of a test query in random order."""
    graded = [(title, 1) for title in right] + [(title, 0) for title in wrong]
    drawn.shuffle(graded)
    return [
        {"sogou_id": f"{drawn.getrandbits(48):012x}", "title": title, "relevance": grade}
        for title, grade in graded
    ]


def main(folder: Path) -> None:
    """Write the official files into a folder."""
    drawn = random.Random("sogou_log sample documents")
    splits = draw("sogou_log", make, SIZES)
    pairs = {
        split: [
            {"query": query, "pos_doc": right[0], "neg_doc": wrong[0]}
            for query, right, wrong in splits[split]
        ]
        for split in ("train", "dev")
    }
    tests = [
        {"query_id": str(number), "query": query, "doc": documents(drawn, right, wrong)}
        for number, (query, right, wrong) in enumerate(splits["test"])
    ]
    write_jsonl(folder, {"train": pairs["train"], "valid": pairs["dev"], "test": tests})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "sogou_log")
