"""Makes the sample data of wordseg_weibo: microblog posts in words, in the shared task's layout.

Every post was composed for this project (code: Apache-2.0, data: CC0-1.0): a template of words
(section "weibo" of words_words.json) with its slots filled, with what posts have: topics, emoticons
in brackets, Latin words, headlines, trailing marks. The splits share templates and slots; no post
is in two of them, not even with another ending.

Scores on it show that the harness runs and that a model learns; they are NOT comparable with scores
on the real WordSeg-Weibo.

Regenerate: `python tasks/sample/make_wordseg_weibo.py`.
"""

from __future__ import annotations

import random
from pathlib import Path

from splits import HERE, draw, write_lines
from words import choose, fill, material

WEIBO = material("weibo")
ENDINGS = ("尾", "问尾")  # slots that do not make a post another one


def make(drawn: random.Random) -> tuple[str, str]:
    """A post without its ending as key, and its words with a space between them."""
    kept = {**WEIBO["slots"], **{ending: [f"{{{ending}}}"] for ending in ENDINGS}}
    post = fill(choose(drawn, WEIBO["templates"]), kept, drawn)
    return post, " ".join(fill(post, WEIBO["slots"], drawn).split())


def write(out: Path) -> None:
    """Write the three files below `out`/wordseg_weibo."""
    splits = draw("wordseg_weibo", make)
    lines = {split: iter(posts) for split, posts in splits.items()}
    write_lines(out / "wordseg_weibo", lines, ".dat")


if __name__ == "__main__":
    write(HERE)
