"""Make the sample data of CCPM (classical poetry matching) that ships with cpm-tune.

A verse-like line is put together from a time, a place and a scene (two, two and three characters);
its modern rendering is put together from renderings of the same parts, two of each. Lines,
renderings and which of them go together are in ccpm_words.json; all of it was composed for this
project. Code: Apache-2.0 with the project; data: CC0-1.0.

The four choices of a row are built from two settings and two scenes (or two each of three parts),
every part standing in exactly two of them: all parts of the translation count, no choice is nearer
to the others than the rest, all have the same length, and the place of the right one is drawn.
Renderings share characters with their line, as in the real data; counting shared characters is the
baseline to beat.

Scores on it show that the harness runs and that a model learns; they are NOT comparable with scores
on the real CCPM.

Regenerate: `python tasks/sample/make_ccpm.py [FOLDER]`.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from splits import HERE, draw, write_jsonl

WORDS = json.loads((HERE / "ccpm_words.json").read_text(encoding="utf-8"))
RENDERINGS = {word[0]: word[-1] for part in WORDS.values() for word in part}
FORMS = (("times", "scenes"), ("places", "scenes"), *[("times", "places", "scenes")] * 3)
# Which of a part's two words each choice takes: each word twice, any two choices as different.
GRIDS = {2: ((0, 0), (0, 1), (1, 0), (1, 1)), 3: ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0))}


def go_together(line: Sequence[list[Any]]) -> bool:
    """Whether the season, the hour and the place of a line's parts suit its scene."""
    *setting, (_, places, seasons, hours, _) = line
    for part in setting:
        if len(part) == 2 and part[0] not in places.split():
            return False
        if len(part) == 4 and not (set(part[1]) & set(seasons) and set(part[2]) & set(hours)):
            return False
    return True


def make(drawn: random.Random) -> tuple[str, dict[str, Any]]:
    """A row; its key is the right line."""
    while True:
        form = drawn.choice(FORMS)
        pairs = [drawn.sample(WORDS[part], 2) for part in form]
        lines = [
            [pair[i] for pair, i in zip(pairs, grid, strict=True)] for grid in GRIDS[len(form)]
        ]
        if all(map(go_together, lines)):
            break
    drawn.shuffle(lines)
    answer = drawn.randrange(len(lines))
    said = [drawn.choice(RENDERINGS[part[0]]) for part in lines[answer]]
    if "places" in form:
        said[form.index("places")] = f"在{said[form.index('places')]}"
    choices = ["".join(part[0] for part in line) for line in lines]
    return choices[answer], {
        "translation": "，".join(said) + "。",
        "choices": choices,
        "answer": answer,
    }


def main(folder: Path) -> None:
    """Write the official files into a folder."""
    splits = draw("ccpm", make)
    write_jsonl(folder, {"train": splits["train"], "valid": splits["dev"], "test": splits["test"]})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "ccpm")
