"""Makes the sample data of spr: dialogues in which some replies are meant to be funny.

Every sentence was composed for this project (code: Apache-2.0, data: CC0-1.0): 28 topics (section
"spr" of words_words.json), each with openings and plain and funny replies to them, and remarks that
fit anywhere, their slots filled. A dialogue is two to four exchanges. Funny are about 30% of the
utterances. They are replies, as are the plain ones, so that place, length and final mark say
something, but much less than the words do. No utterance is in two splits.

Scores on it show that the harness runs and that a model learns; they are NOT comparable with scores
on the real SPR.

Regenerate: `python tasks/sample/make_spr.py`.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator
from pathlib import Path

from splits import HERE, SIZES, write_lines
from words import choose, material, pick

SPR = material("spr")
COLUMNS = ("ID", "Dialogue_id", "Utterance_id", "Speaker", "Sentence", "Label")
FUNNY = 0.75  # of the replies
LEAD = 0.5  # of the openings come with some words before them
TAILS = {True: 0.1, False: 0.6}  # of the funny and of the plain replies go on, to be as long
REMARK = 0.2  # of the exchanges are followed by a remark

Utterance = tuple[str, str, int]  # speaker, sentence, label


def dialogue(drawn: random.Random) -> Iterator[Utterance]:
    """Two to four exchanges between two people."""
    first = choose(drawn, SPR["speakers"])
    second = choose(drawn, [name for name in SPR["speakers"] if name != first])
    if drawn.random() < REMARK:
        yield first, _said("remarks", drawn), 0
    for _ in range(2 + int(drawn.random() * 3)):
        asking, replying = (first, second) if drawn.random() < 0.5 else (second, first)
        unit, words = choose(drawn, SPR["units"]), pick(SPR["slots"], drawn)
        call = choose(drawn, ["", "", "哎，", "对了，", f"{replying}，", f"{replying}，"])
        opening = choose(drawn, unit["ask"])
        lead = _said(f"leads{opening[-1]}", drawn) if drawn.random() < LEAD else ""
        call = "" if lead and call in ("哎，", "对了，") else call
        yield asking, lead + opening.format(称呼=call, **words), 0
        funny = drawn.random() < FUNNY
        tail = _said("tails", drawn) if drawn.random() < TAILS[funny] else ""
        reply = choose(drawn, unit["funny" if funny else "plain"]).format(**words)
        yield replying, reply + tail, int(funny)
        if drawn.random() < REMARK:
            yield asking, _said("remarks", drawn), 0
    if drawn.random() < 0.5:
        yield first, _said("closings", drawn), 0


def _said(what: str, drawn: random.Random) -> str:
    return str(choose(drawn, SPR[what]).format(**pick(SPR["slots"], drawn)))


def make() -> dict[str, list[str]]:
    """The lines of each split; a dialogue that repeats one of another split is drawn again."""
    drawn = random.Random("spr sample data")
    said: dict[str, str] = {}
    splits: dict[str, list[str]] = {}
    for split, size in SIZES.items():
        lines = [",".join(COLUMNS)]
        number = 0
        while len(lines) <= size:
            utterances = list(dialogue(drawn))[: size - len(lines) + 1]
            sentences = [sentence for _, sentence, _ in utterances]
            fresh = len(set(sentences)) == len(sentences)
            if not fresh or any(said.get(s, split) != split for s in sentences):
                continue
            said |= dict.fromkeys(sentences, split)
            for place, utterance in enumerate(utterances):
                lines.append(_line(len(lines) - 1, number, place, *utterance))
            number += 1
        splits[split] = lines
    return splits


def _line(*cells: str | int) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def write(out: Path) -> None:
    """Write the three files below `out`/spr."""
    write_lines(out / "spr", {split: iter(lines) for split, lines in make().items()}, ".csv")


if __name__ == "__main__":
    write(HERE)
