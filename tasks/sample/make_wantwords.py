"""Make the sample data of WantWords (reverse dictionary) that ships with cpm-tune.

A word is a kind of thing with what makes it special (书 + 店); its definition puts one of two
descriptions of what makes it special into one of the wordings for its kind (wantwords_words.json,
where {a|b} are alternatives). Everything was composed for this project. Code: Apache-2.0 with the
project; data: CC0-1.0.

A definition is in one split only; most words are in several, with other definitions, and one in
eight is in dev and test alone, so that a word has to be put together from its parts.

Scores on it show that the harness runs and that a model learns; they are NOT comparable with scores
on the real WantWords.

Regenerate: `python tasks/sample/make_wantwords.py [FOLDER]`.
"""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path

from splits import HERE, SIZES, draw, write_jsonl

KINDS = json.loads((HERE / "wantwords_words.json").read_text(encoding="utf-8"))
UNSEEN = 8  # every eighth word is kept out of train, and an eighth of dev and test is about these
HELD = set([(kind["head"], special) for kind in KINDS for special in kind["words"]][::UNSEEN])


def make(drawn: random.Random) -> tuple[str, tuple[str, str, bool]]:
    """A definition, which is the key, its word and whether train may have it."""
    kind = drawn.choice(KINDS)
    special, described = drawn.choice(list(kind["words"].items()))
    wording = drawn.choice(kind["says"]).replace("{x}", drawn.choice(described))
    definition = re.sub(r"{([^}]*)}", lambda m: drawn.choice(m[1].split("|")), wording)
    word = special if special.endswith(kind["head"]) else special + kind["head"]
    return definition, (definition, word, (kind["head"], special) not in HELD)


def main(folder: Path) -> None:
    """Write the official files into a folder."""
    wanted = sum(SIZES.values())
    drawn = draw("wantwords", make, {"all": wanted + wanted // 4})["all"]
    seen = [(text, word) for text, word, train in drawn if train]
    unseen = [(text, word) for text, word, train in drawn if not train]
    splits = {"train": seen[: SIZES["train"]]}
    rest = seen[SIZES["train"] :]
    for split, name in (("dev", "valid"), ("test", "test")):
        few = SIZES[split] // UNSEEN
        many = SIZES[split] - few
        splits[name] = unseen[:few] + rest[:many]
        unseen, rest = unseen[few:], rest[many:]
    order = random.Random("wantwords sample order")
    for rows in splits.values():
        order.shuffle(rows)
    write_jsonl(
        folder,
        {
            split: [{"definition": text, "word": word} for text, word in rows]
            for split, rows in splits.items()
        },
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "wantwords")
