"""Makes the sample data of pku_segpos: news sentences in words with parts of speech.

Every sentence was composed for this project (code: Apache-2.0, data: CC0-1.0): a template of
tagged words (section "news" of words_words.json) with its slots filled. The splits share templates
and slots, no sentence is in two of them. Words and tags follow the conventions of Peking
University. Tags depend on more than the word (交通 不便/a, 带来 不便/an), but the most frequent tag
of a word in train is a strong guess, as it is in the real data.

Scores on it show that the harness runs and that a model learns; they are NOT comparable with scores
on the real PKU-SEGPOS.

Regenerate: `python tasks/sample/make_pku_segpos.py`.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from splits import HERE, draw
from words import choose, fill, material, write_compact

NEWS = material("news")
PUNCTUATION = "，。、：；“”（）！？"
LONGEST = 12  # words of a sentence


def tagged_sentence(drawn: random.Random) -> list[tuple[str, str]]:
    """Words with their tags."""
    text = fill(choose(drawn, NEWS["templates"]), NEWS["slots"], drawn)
    return [
        (part, "w") if part in PUNCTUATION else (part.rpartition("/")[0], part.rpartition("/")[2])
        for part in text.split()
    ]


def make(drawn: random.Random) -> tuple[str, Any]:
    """A sentence as key, and CUGE's record of it."""
    sentence = tagged_sentence(drawn)
    while len(sentence) > LONGEST:
        sentence = tagged_sentence(drawn)
    spans, tokens = [], ""
    for word, tag in sentence:
        spans.append({"start": len(tokens), "end": len(tokens) + len(word) - 1, "type": tag})
        tokens += word
    return tokens, {"tokens": list(tokens), "span_list": spans}


def write(out: Path) -> None:
    """Write the three files below `out`/pku_segpos."""
    write_compact(out / "pku_segpos", draw("pku_segpos", make))


if __name__ == "__main__":
    write(HERE)
