"""The rows of worth.py's probes, made at run time from the held-out documents of a corpus.

Rows of one document stay in one split. Nothing of what is written here belongs in a repository.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from cpm_tune.backbone.tokens import Tokenizer
from cpm_tune.data.readers import json_lines, lines
from cpm_tune.errors import UserError
from cpm_tune.pretrain.store import Corpus
from cpm_tune.task import BadRow

A, B = "sentence1", "sentence2"
VERSE = ("tang", "song", "ci", "qu")
MODERN = ("office-help", "linux", "electron")
PAIRS = ("office-pairs", "jupyter-pairs")
SOURCES = (*VERSE, *MODERN, *PAIRS, "novel")  # that rows are made from
Row = dict[str, Any]
Texts = dict[str, list[str]]

TASK = '''
"""Made by scripts/worth.py."""

from cpm_tune.task import Files, Options, Source, Task, Template

TASK = Task(
    name={name!r},
    version=2,
    capability="probe",
    kind={about!r},
    source=Source(title={about!r}, paper="", licence="not distributed", obtain="scripts/worth.py"),
    files=Files(columns=("given", "options", "answer"), texts=("options",)),
    answer=Options(),
    templates=(Template("probe", {template!r}),),
    metrics=("accuracy",),
)
'''


@dataclass(frozen=True)
class Probe:
    """Which of four options is right? `rows` makes its rows, in groups that are not split up.

    `sizes`: rows of train, dev and test.
    """

    name: str
    about: str
    template: str
    rows: Callable[[Texts, random.Random], list[list[Row]]]
    sizes: tuple[int, int, int]


# --- rows from held-out documents ---------------------------------------------------------------

_COUPLET = re.compile(r"([\u4e00-\u9fff]{5}|[\u4e00-\u9fff]{7})[，,]([\u4e00-\u9fff]{5,7})。")


def heldout_texts(corpus: Corpus, tokenizer: Tokenizer) -> Texts:
    """Every source's held-out documents, decoded."""
    if missing := [name for name in SOURCES if name not in corpus.weights()]:
        raise UserError(
            f"{corpus.path}: no source '{missing[0]}'; expected the corpus of scripts/corpus.py."
        )
    result = {}
    for name in corpus.weights():
        split = corpus.split(name, "heldout")
        result[name] = [tokenizer.decode(split.document(i).tolist()) for i in range(len(split))]
    return result


def couplets(texts: Texts) -> list[list[tuple[str, str]]]:
    """The couplets of five and seven characters a line of every held-out Tang and Song poem."""
    groups = []
    for text in [*texts["tang"], *texts["song"]]:
        matches = map(_COUPLET.fullmatch, text.split("\n"))
        groups.append([(m[1], m[2]) for m in matches if m and len(m[1]) == len(m[2])])
    return groups


def row(given: str, right: str, wrong: list[str], drawn: random.Random) -> Row:
    """A row with its four options in a drawn order."""
    options = [right, *wrong]
    drawn.shuffle(options)
    return {"given": given, "options": options, "answer": options.index(right)}


def next_lines(texts: Texts, drawn: random.Random) -> list[list[Row]]:
    """Which line follows a couplet's first? The wrong ones, as long, come from other poems."""
    groups = couplets(texts)
    pool: dict[int, list[tuple[int, str]]] = {5: [], 7: []}
    for number, group in enumerate(groups):
        for _, second in group:
            pool[len(second)].append((number, second))
    for length, verses in pool.items():
        per_poem = Counter(number for number, _ in verses)
        distinct = len({line for _, line in verses})
        if verses and distinct - max(per_poem.values()) < 4:
            raise UserError(
                f"next-line: {distinct} distinct lines of {length} characters in the held-out "
                "poems are too few for three wrong ones from other poems; hold out more."
            )
    result = []
    for number, group in enumerate(groups):
        rows = []
        for first, second in group:
            wrong: list[str] = []
            while len(wrong) < 3:
                other, line = drawn.choice(pool[len(second)])
                if other != number and line not in (second, *wrong):
                    wrong.append(line)
            rows.append(row(first, second, wrong, drawn))
        result.append(rows)
    return result


def pairs(texts: Texts, drawn: random.Random) -> list[list[Row]]:
    """Which Chinese string is the translation? The wrong ones are others of similar length."""
    strings = []
    for text in [text for name in PAIRS for text in texts[name]]:
        parts = text.split("\n")
        for a, b in zip(parts[::2], parts[1::2], strict=False):
            en, zh = (b, a) if re.search("[\u4e00-\u9fff]", a) else (a, b)
            if re.search("[\u4e00-\u9fff]", zh) and len(en) + len(zh) < 100:
                strings.append((en, zh))
    if strings and len({zh for _, zh in strings}) < 4:
        raise UserError("en-zh: fewer than four distinct held-out Chinese strings; hold out more.")
    result = []
    for en, zh in strings:
        near = sorted({z for _, z in strings if z != zh}, key=lambda z: (abs(len(z) - len(zh)), z))
        result.append([row(en, zh, drawn.sample(near[:12], 3), drawn)])
    return result


def segmentations(texts: Texts, drawn: random.Random) -> list[list[Row]]:
    """Which segmentation is right? The right one is jieba's (agreement, not gold); in each wrong
    one one word's end has moved by a character."""
    import jieba

    jieba.setLogLevel(60)
    result = []
    for text in [t for name in (*MODERN, "novel") for t in texts[name]]:
        rows = []
        for line in re.findall(r"[\u4e00-\u9fff]{6,24}", text):
            ends = np.cumsum([len(word) for word in jieba.cut(line)]).tolist()
            moved = [
                sorted({*ends[:k], end + by, *ends[k + 1 :]})
                for k, end in enumerate(ends[:-1])
                for by in (-1, 1)
                if end + by not in (0, *ends)
            ]
            if len(moved) >= 3:
                right, *wrong = (
                    "/".join(line[a:b] for a, b in zip([0, *e[:-1]], e, strict=True))
                    for e in [ends, *drawn.sample(moved, 3)]
                )
                rows.append(row(line, right, wrong, drawn))
        result.append(rows[:40])
    return [rows for rows in result if rows]


PROBES = (
    Probe(
        "next-line",
        "couplets of held-out poems: which line follows the first?",
        "{given}，{option}。[是否正确]",
        next_lines,
        (9600, 300, 1000),
    ),
    Probe(
        "en-zh",
        "held-out user-interface strings: which Chinese string is the translation?",
        "{given}\n{option}[是否正确]",
        pairs,
        (640, 120, 400),
    ),
    Probe(
        "segmentation",
        "held-out modern text: which segmentation into words is right (jieba's)?",
        "{given}的分词是{option}[是否正确]",
        segmentations,
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
        encoded = [json.dumps({"id": i, **row}, ensure_ascii=False) for i, row in enumerate(rows)]
        (data / f"{split}.jsonl").write_text("\n".join(encoded) + "\n", encoding="utf-8")
    tasks = folder / "tasks"
    tasks.mkdir(exist_ok=True)
    text = TASK.format(name=probe.name, about=probe.about, template=probe.template).lstrip()
    (tasks / f"{probe.name}.py").write_text(text, encoding="utf-8")


def write_lcqmc(file: Path, folder: Path) -> None:
    """Split a real LCQMC file into 1,000 rows of test, 800 of dev and the rest, at random with a
    fixed seed. Parts share no sentence: rows that have one in common stay together.

    Training has every pair in both orders: whether two questions ask the same does not depend on
    which comes first.
    """
    try:
        texts = [text for _, text in lines(file) if isinstance(text, BadRow) or text.strip()]
    except OSError as error:
        raise UserError(f"{file}: not readable ({error}); expected LCQMC's dev.jsonl.") from error
    if bad := [text for text in texts if isinstance(text, BadRow)]:
        raise UserError(bad[0].message)
    if len(texts) < 7801:
        raise UserError(f"{file}: {len(texts):,} rows, expected LCQMC's dev.jsonl with 8,802.")
    try:
        groups = by_shared_sentence([json.loads(text) for text in texts])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: not LCQMC's dev.jsonl ({error!r}).") from error
    random.Random(1).shuffle(groups)
    stream = iter(groups)
    parts: dict[str, list[Row]] = {"test": [], "dev": []}
    for part, size in (("test", 1000), ("dev", 800)):
        while len(parts[part]) < size and (group := next(stream, None)) is not None:
            parts[part] += group
    rows = [row for group in stream for row in group]
    if not rows:
        raise UserError(f"{file}: its rows have sentences in common, so they cannot be split.")
    parts["train"] = [*rows, *({**row, A: row[B], B: row[A]} for row in rows)]
    folder.mkdir(parents=True, exist_ok=True)
    for part, chosen in parts.items():
        encoded = [json.dumps(row, ensure_ascii=False) for row in chosen]
        (folder / f"{part}.jsonl").write_text("\n".join(encoded) + "\n", encoding="utf-8")


def by_shared_sentence(rows: list[Row]) -> list[list[Row]]:
    """Rows in groups: two of different groups have no sentence in common, even if letters' case,
    widths, spaces and punctuation do not count."""
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        parent.setdefault(text, text)
        while parent[text] != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    both = [
        [re.sub(r"[\W_]", "", normalize("NFKC", row[side])).lower() for side in (A, B)]
        for row in rows
    ]
    for first, second in both:
        parent[root(first)] = root(second)
    groups: dict[str, list[Row]] = {}
    for row, (first, _) in zip(rows, both, strict=True):
        groups.setdefault(root(first), []).append(row)
    return list(groups.values())


def overlap_baseline(folder: Path) -> dict[str, float]:
    """What two questions' characters alone tell: the threshold on their Jaccard index that is best
    on train, and its accuracy on test."""

    def scored(split: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        rows = [row for _, row in json_lines(folder / f"{split}.jsonl")]
        characters = [({*row[A]}, {*row[B]}) for row in rows]
        overlaps = np.array([len(a & b) / (len(a | b) or 1) for a, b in characters])
        return overlaps, np.array([int(row["label"]) == 1 for row in rows])

    overlaps, same = scored("train")
    threshold = max(np.unique(overlaps), key=lambda t: float(((overlaps >= t) == same).mean()))
    overlaps, same = scored("test")
    return {"threshold": float(threshold), "test": float(((overlaps >= threshold) == same).mean())}
