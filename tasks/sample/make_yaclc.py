"""Makes the sample data of yaclc: sentences with a learner's mistake and their corrections.

Every sentence was composed for this project (code: Apache-2.0, data: CC0-1.0): a pattern (section
"yaclc" of words_words.json) is a wrong sentence with one or two right ones, for the mistakes that
learners of Chinese often make: measure words, word order, 了, 比, 把, separable verbs, 的 and 得,
prepositions, wrong characters. Before it may stand an opening, sometimes with a mistake of its own.
One sentence in ten is right as it is and has no annotations. The splits share patterns and words;
no sentence is in two of them.

Scores on it show that the harness runs and that a model learns; they are NOT comparable with scores
on the real YACLC.

Regenerate: `python tasks/sample/make_yaclc.py`.
"""

from __future__ import annotations

import random
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from splits import HERE, draw, write_jsonl
from words import choose, material, pick

YACLC = material("yaclc")
ASKING = ("你", "请")  # sentences that stand alone
RIGHT_SHARE = 0.1
ANNOTATORS = 10


def make(drawn: random.Random) -> tuple[str, Any]:
    """A sentence as key, and the official record of it."""
    wrong, *right = choose(drawn, YACLC["patterns"])
    picked = pick(YACLC["slots"], drawn)
    before, mended = ("", "") if wrong.startswith(ASKING) else choose(drawn, YACLC["openers"])
    text = before + wrong.format(**picked)
    corrections = [mended + form.format(**picked) for form in right]
    if drawn.random() < RIGHT_SHARE:
        text, corrections = corrections[0], []
    first = ANNOTATORS if len(corrections) == 1 else 6 + int(drawn.random() * 4)
    annotations = [
        {
            "is_grammatical": 1,
            "correction": correction,
            "edits_count": _edits(text, correction),
            "annotator_count": first if i == 0 else ANNOTATORS - first,
        }
        for i, correction in enumerate(corrections)
    ]
    number = int(drawn.random() * 9000) + 1000
    return text, {"sentence_id": number, "sentence_text": text, "sentence_annos": annotations}


def _edits(text: str, correction: str) -> int:
    matcher = SequenceMatcher(None, text, correction, autojunk=False)
    return sum(tag != "equal" for tag, *_ in matcher.get_opcodes())


def write(out: Path) -> None:
    """Write the three files below `out`/yaclc."""
    write_jsonl(out / "yaclc", draw("yaclc", make))


if __name__ == "__main__":
    write(HERE)
