"""The rows of worth.py's probes, made at run time from the held-out documents of a corpus.

Rows of one document stay in one split. Nothing of what is written here belongs in a repository.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cpm_tune.backbone.tokenizer import Tokenizer
from cpm_tune.pretrain.store import Corpus

VERSE = ("tang", "song", "ci", "qu")
MODERN = ("office-help", "linux", "electron")
Row = dict[str, Any]
Texts = dict[str, list[str]]

TASK = '''
"""Made by scripts/worth.py."""

from cpm_tune.task import Choice, Files, Source, Task, Template

TASK = Task(
    name={name!r},
    version=1,
    capability="probe",
    kind={about!r},
    source=Source(title={about!r}, paper="", licence="not distributed", obtain="scripts/worth.py"),
    files=Files(columns={columns!r}),
    answer=Choice(labels=(0, 1)),
    templates=(Template("probe", {template!r}, ("否", "是")),),
    metrics=("accuracy",),
)
'''


@dataclass(frozen=True)
class Probe:
    """A yes-or-no task; `rows` makes its rows, without repeats of a group across splits.

    `sizes`: rows of train, dev and test.
    """

    name: str
    about: str
    template: str
    rows: Callable[[Texts, random.Random], list[list[Row]]]
    sizes: tuple[int, int, int]


# --- rows from held-out documents ---------------------------------------------------------------

_COUPLET = re.compile(r"([\u4e00-\u9fff]{5}|[\u4e00-\u9fff]{7})，([\u4e00-\u9fff]{5,7})。")


def heldout_texts(corpus: Corpus, tokenizer: Tokenizer) -> Texts:
    """Every source's held-out documents, decoded."""
    result = {}
    for name in corpus.sources:
        split = corpus.split(name, "heldout")
        result[name] = [tokenizer.decode(split.document(i).tolist()) for i in range(len(split))]
    return result


def couplets(texts: Texts) -> list[list[tuple[str, str]]]:
    """The couplets of five and seven characters a line of every held-out Tang and Song poem."""
    groups = []
    for text in [*texts["tang"], *texts["song"]]:
        found = [m.groups() for line in text.split("\n") if (m := _COUPLET.fullmatch(line))]
        groups.append([(a, b) for a, b in found if len(a) == len(b)])
    return groups


def next_lines(texts: Texts, drawn: random.Random) -> list[list[Row]]:
    """Does the second line of a couplet follow the first? Wrong ones come from other poems."""
    groups = couplets(texts)
    pool: dict[int, list[tuple[int, str]]] = {5: [], 7: []}
    for number, group in enumerate(groups):
        for _, second in group:
            pool[len(second)].append((number, second))
    result = []
    for number, group in enumerate(groups):
        rows = []
        for first, second in group:
            label = drawn.randrange(2)
            shown = second
            while not label and (shown == second):
                other, candidate = drawn.choice(pool[len(second)])
                shown = candidate if other != number else second
            rows.append({"first": first, "second": shown, "label": label})
        result.append(rows)
    return result


def pairs(texts: Texts, drawn: random.Random) -> list[list[Row]]:
    """Is the Chinese string the translation? Wrong ones are other strings of similar length."""
    found = []
    for text in [*texts["office-pairs"], *texts["jupyter-pairs"]]:
        lines = text.split("\n")
        for a, b in zip(lines[::2], lines[1::2], strict=False):
            en, zh = (b, a) if re.search("[\u4e00-\u9fff]", a) else (a, b)
            if re.search("[\u4e00-\u9fff]", zh) and len(en) + len(zh) < 100:
                found.append((en, zh))
    result = []
    for en, zh in found:
        near = [z for _, z in found if z != zh and abs(len(z) - len(zh)) <= 2]
        rows = [{"en": en, "zh": zh, "label": 1}]
        if near:
            rows.append({"en": en, "zh": drawn.choice(near), "label": 0})
        result.append(rows)
    return result


def boundaries(texts: Texts, drawn: random.Random) -> list[list[Row]]:
    """Does a word end here? The words are those that jieba cuts: agreement, not gold."""
    import jieba

    jieba.setLogLevel(60)
    result = []
    for text in [t for name in (*MODERN, "novel") for t in texts[name]]:
        rows = []
        for line in re.findall(r"[\u4e00-\u9fff]{8,40}", text):
            ends = set(np.cumsum([len(word) for word in jieba.cut(line)])[:-1].tolist())
            inside = set(range(1, len(line))) - ends
            for label, places in ((1, ends), (0, inside)):
                for at in drawn.sample(sorted(places), min(2, len(ends), len(inside))):
                    rows.append({"before": line[:at], "after": line[at:], "label": label})
        if rows:
            result.append(rows)
    return result


PROBES = (
    Probe(
        "next-line",
        "couplets of held-out poems: does the second line follow the first?",
        "{first}，{second}。[是否正确]{answer}",
        next_lines,
        (8800, 600, 1600),
    ),
    Probe(
        "en-zh",
        "held-out user-interface strings: is the Chinese the translation?",
        "{en}\n{zh}[是否正确]{answer}",
        pairs,
        (640, 120, 400),
    ),
    Probe(
        "word-boundary",
        "held-out modern text: does a word end at the stroke (by jieba)?",
        "{before}/{after}[是否正确]{answer}",
        boundaries,
        (2400, 300, 900),
    ),
)


def write_probe(probe: Probe, texts: Texts, folder: Path) -> None:
    """Write task file and data; rows of one document stay in one split."""
    drawn = random.Random(f"{probe.name} 1")
    groups = probe.rows(texts, drawn)
    drawn.shuffle(groups)
    total, left = sum(map(len, groups)), sum(probe.sizes)
    scale = min(1.0, total / left)
    data = folder / probe.name
    data.mkdir(parents=True, exist_ok=True)
    stream: Iterator[list[Row]] = iter(groups)
    for split, size in zip(("test", "dev", "train"), reversed(probe.sizes), strict=True):
        rows: list[Row] = []
        while len(rows) < int(size * scale) and (group := next(stream, None)) is not None:
            rows += group
        lines = [json.dumps({"id": i, **row}, ensure_ascii=False) for i, row in enumerate(rows)]
        (data / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    columns = tuple(groups[0][0])
    tasks = folder / "tasks"
    tasks.mkdir(exist_ok=True)
    text = TASK.format(
        name=probe.name, about=probe.about, columns=columns, template=probe.template
    ).lstrip()
    (tasks / f"{probe.name}.py").write_text(text, encoding="utf-8")


def write_lcqmc(file: Path, folder: Path) -> None:
    """Split a real LCQMC file into 7,000 / 800 / the rest, in its own order."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    folder.mkdir(parents=True, exist_ok=True)
    for split, part in (
        ("train", lines[:7000]),
        ("dev", lines[7000:7800]),
        ("test", lines[7800:8800]),
    ):
        (folder / f"{split}.jsonl").write_text("\n".join(part) + "\n", encoding="utf-8")
