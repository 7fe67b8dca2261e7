"""Makes the sample data of cmeee: short medical passages with nested entities.

Every sentence was composed for this project (code: Apache-2.0, data: CC0-1.0): 26 diseases with
their symptoms, pathogens, drugs, procedures and so on (section "cmeee" of words_words.json; common
knowledge, no advice) fill the sentences below. A passage is two sentences about one
disease, or a patient's case. Body parts are entities inside symptoms and procedures, as in the real
data. The splits share diseases; no passage is in two of them.

Scores on it show that the harness runs and that a model learns; they are NOT comparable with scores
on the real CMeEE.

Regenerate: `python tasks/sample/make_cmeee.py`.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

from splits import HERE, draw
from words import choose, fill, material, write_compact

DISEASES = material("cmeee")
ABOUT = (
    "{dis}是一种常见的疾病，病变主要累及{bod}。",
    "{dis}在门诊中比较常见，可由{mic}感染引起。",
    "{mic}是引起{dis}的重要病原体。",
    "本文讨论{dis}的诊断和治疗。",
)
SYMPTOMS = (
    "患者常有{sym}和{sym}，部分患者还可出现{sym}。",
    "早期多表现为{sym}，随后出现{sym}。",
    "典型表现为{sym}，可伴有{sym}。",
    "主要症状是{sym}、{sym}和{sym}，轻重不一。",
    "多数患者因{sym}前来就诊，检查发现{bod}有异常。",
)
TESTS = (
    "{pro}和{ite}对诊断很有帮助。",
    "怀疑{dis}时应及时做{pro}，并复查{ite}。",
    "如果{ite}异常，应当进一步做{pro}。",
    "检查所用的{equ}应当定期校准。",
)
TREATMENT = (
    "治疗上可选用{dru}，必要时加用{dru}。",
    "一般给予{dru}治疗，疗程由{dep}医生决定。",
    "病情较重者应到{dep}住院治疗。",
    "使用{dru}期间应注意观察{bod}的变化。",
    "本病应与{other}相鉴别。",
)
CASES = (
    "患者，{who}，{age}岁，因{sym}、{sym}{days}天到{dep}就诊。查{ite}异常，诊断为{dis}，给予{dru}治疗后好转。",
    "{who}，{age}岁，{days}天前出现{sym}，后来又有{sym}。{pro}提示{dis}，转入{dep}。",
    "{dep}收治一名{age}岁的{who}患者，表现为{sym}，经{pro}确诊为{dis}，使用{dru}{days}天后症状消失。",
)
CHILDREN = ("水痘", "手足口病", "维生素D缺乏症")
DAYS = [*"一两三四五六七", "十"]


KINDS = (
    (ABOUT, SYMPTOMS),
    (ABOUT, TESTS),
    (ABOUT, TREATMENT),
    (SYMPTOMS, TESTS),
    (SYMPTOMS, TREATMENT),
)


def make(drawn: random.Random) -> tuple[str, Any]:
    """A passage as key, and CBLUE's record of it."""
    disease = choose(drawn, DISEASES)
    parts = [choose(drawn, CASES)]
    if drawn.random() < 0.85:
        kinds = choose(drawn, KINDS)
        parts = [choose(drawn, sentences) for sentences in kinds]
    slots = {code: _marked(code, words) for code, words in disease.items()}
    slots["other"] = _marked("dis", disease["other"])
    ages = range(2, 9) if disease["dis"] in CHILDREN else range(21, 66)
    slots |= {"who": ["男", "女"], "age": [str(age) for age in ages], "days": DAYS}
    counts = {code: sum(part.count(f"{{{code}}}") for part in parts) for code in slots}
    if any(n > len(slots[code]) for code, n in counts.items() if code not in ("dis", "dep")):
        return make(drawn)
    passage = "".join(fill(part, slots, drawn) for part in parts)
    text, entities = _entities(passage)
    return text, {"text": text, "entities": entities}


def _marked(code: str, words: str | list[str]) -> list[str]:
    return [f"<{code} {word}>" for word in ([words] if isinstance(words, str) else words)]


def _entities(marked: str) -> tuple[str, list[dict[str, Any]]]:
    """The text of "<code mention>", nested or not, and its entities in order."""
    text, opened, found = "", list[tuple[int, str]](), []
    for piece in re.findall(r"<\w+ |>|[^<>]+", marked):
        if piece.startswith("<"):
            opened.append((len(text), piece[1:-1]))
        elif piece == ">":
            start, code = opened.pop()
            end = len(text) - 1
            entity = {"start_idx": start, "end_idx": end, "type": code, "entity": text[start:]}
            found.append(entity)
        else:
            text += piece
    return text, sorted(found, key=lambda e: (e["start_idx"], -e["end_idx"]))


def write(out: Path) -> None:
    """Write the three files below `out`/cmeee."""
    write_compact(out / "cmeee", draw("cmeee", make))


if __name__ == "__main__":
    write(HERE)
