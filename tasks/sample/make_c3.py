"""Make the sample data of C3 (multiple-choice reading comprehension) that ships with cpm-tune.

Dialogues and short passages with gaps (c3_texts.json) are filled from word lists, and a question is
asked about one gap. The other choices are of the same list; most often one of them occurs in the
text as well, first as often as last, so that the text has to be read: who said what, and what came
of it. Judgements (正确 / 错误) are true as often as false. All of it was composed for this project.
Code: Apache-2.0 with the project; data: CC0-1.0.

The place of the right choice is drawn; splits share texts' frames, but no filled text.

Scores on it show that the harness runs and that a model learns; they are NOT comparable with scores
on the real C3.

Regenerate: `python tasks/sample/make_c3.py [FOLDER]`.
"""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path
from typing import Any

from splits import HERE, SIZES, draw

WORDS = json.loads((HERE / "c3_texts.json").read_text(encoding="utf-8"))
LISTS = WORDS["words"]
PARTS = {"d": "dialogues", "m": "passages"}


def filled(drawn: random.Random, frame: dict[str, Any]) -> dict[str, str]:
    """Different words for the gaps of a frame: day1, day2, spot1."""
    gaps = sorted(set(re.findall(r"{(\w+?\d)}", json.dumps(frame))))
    words: dict[str, str] = {}
    for gap in gaps:
        taken = set(words.values())
        words[gap] = drawn.choice([word for word in LISTS[gap[:-1]] if word not in taken])
    return words


def question(drawn: random.Random, frame: dict[str, Any], words: dict[str, str]) -> dict[str, Any]:
    """A judgement or a question with three or four choices."""
    if "judge" in frame and drawn.random() < 0.25:
        said = drawn.randrange(2)
        statement = drawn.choice(frame["judge"])[said].format(**words)
        return {"question": statement, "choice": ["正确", "错误"], "answer": ["正确", "错误"][said]}
    asked, right, other = drawn.choice(frame["ask"])
    choices = [words[right]] + ([words[other]] if other else [])
    unused = [word for word in LISTS[right[:-1]] if word not in choices]
    choices += drawn.sample(unused, drawn.choice((3, 4, 4, 4)) - len(choices))
    drawn.shuffle(choices)
    return {"question": asked.format(**words), "choice": choices, "answer": words[right]}


def make(drawn: random.Random) -> tuple[tuple[str, ...], tuple[str, list[Any]]]:
    """A text with its question; its key is the text."""
    part = drawn.choice("dm")
    frame = drawn.choice(WORDS[PARTS[part]])
    words = filled(drawn, frame)
    lines = [line.format(**words) for line in frame.get("lines", [frame.get("text")])]
    return tuple(lines), (part, [lines, [question(drawn, frame, words)]])


def main(folder: Path) -> None:
    """Write the official files into a folder: an array of texts each, a text on a line."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = draw("c3", make, SIZES)
    for split, texts in splits.items():
        for part in PARTS:
            own = [text for of, text in texts if of == part]
            items = [[*text, f"{split}-{part}-{n}"] for n, text in enumerate(own)]
            written = ",\n".join(json.dumps(item, ensure_ascii=False) for item in items)
            path = folder / f"c3-{part}-{split}.json"
            path.write_text(f"[\n{written}\n]\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "c3")
