"""Makes the sample data of pku_seg: news sentences in words, in the layout of the bakeoff.

Every sentence was composed for this project (code: Apache-2.0, data: CC0-1.0): a template of
tagged words (section "news" of words_words.json) with its slots filled. Split names and slots are
shared between the splits, no sentence is in two of them. Boundaries follow the conventions of
Peking University (surname and given name are two words, 3月 5日 too). A single character a word
gives a word F1 well below what the words of train give by longest match.

Scores on it show that the harness runs and that a model learns; they are NOT comparable with scores
on the real PKU-SEG.

Regenerate: `python tasks/sample/make_pku_seg.py`.
"""

from __future__ import annotations

import random
from pathlib import Path

from make_pku_segpos import tagged_sentence
from splits import HERE, draw, write_lines


def make(drawn: random.Random) -> tuple[str, str]:
    """A sentence as key, and its words with two spaces between them, ending in CR."""
    words = [word for word, _ in tagged_sentence(drawn)]
    return "".join(words), "  ".join(words) + "\r"


def write(out: Path) -> None:
    """Write the three files below `out`/pku_seg."""
    splits = draw("pku_seg", make)
    write_lines(out / "pku_seg", {split: iter(lines) for split, lines in splits.items()}, ".txt")


if __name__ == "__main__":
    write(HERE)
