"""LCSTS: write the headline of a short news text. (Hu et al., EMNLP 2015)"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpm_tune.data.readers import Layout, Records, lines, records, starts_with
from cpm_tune.task import (
    STEMS,
    BadRow,
    Files,
    Generate,
    NamedRecipe,
    Source,
    Submission,
    Task,
    Template,
)

TAG = re.compile(r"<(/?)(doc|human_label|summary|short_text)(?: id=\"?(\w+)\"?)?>")
LEAST_SCORE = 3  # of 1 to 5: how well a summary fits its text, in PART_II and PART_III
COLUMNS = ("text", "summary")
ALIASES = {
    **dict.fromkeys(("content", "article", "short_text", "正文", "内容", "文本"), "text"),
    **dict.fromkeys(("title", "headline", "标题", "摘要"), "summary"),
}


def read(paths: tuple[Path, ...], split: str, layout: Layout) -> Records:
    """The original PART files of <doc> elements, or any of the usual files."""
    optional = ("summary",) if split == "test" else ()
    for path in paths:
        if path.suffix == ".txt" and starts_with(path) == "<":
            yield from documents(path, layout)
        else:
            yield from records(path, COLUMNS, ALIASES, optional, layout)


def documents(path: Path, layout: Layout) -> Records:
    """The <doc> elements of an original file with a score from 3, or without one.

    A tag and a text are lines of their own, or share one.
    """
    doc: dict[str, Any] = {}
    place, name, n_low = "", "", 0
    for where, line in lines(path):
        if isinstance(line, BadRow):
            yield where, line
            continue
        at = 0
        for tag in [*TAG.finditer(line), None]:
            text = line[at : tag.start() if tag else None].strip()
            if text and name:
                doc[name] = "\n".join(filter(None, (doc.get(name), text)))
            elif text:
                yield (
                    where,
                    BadRow(f"{where}: text outside <summary> and <short_text> (task lcsts)."),
                )
            if tag is None:
                break
            at, (end, kind, number) = tag.end(), tag.groups()
            if kind != "doc":
                name = "" if end else kind
                doc.setdefault(kind, "")
            elif not end:
                if doc:
                    yield place, BadRow(f"{place}: no </doc> before the next <doc> (task lcsts).")
                doc, place, name = {"id": number}, where, ""
            elif doc:
                low = doc.get("human_label", "5") < str(LEAST_SCORE)
                n_low += low
                if not low:
                    yield place, _pair(doc, place)
                doc, name = {}, ""
    if doc:
        yield place, BadRow(f"{place}: no </doc> to the end of the file (task lcsts).")
    if n_low:
        left_out = f"{n_low:,} pairs with a score below {LEAST_SCORE} are left out"
        layout.warnings.append(f"{path.name}: {left_out}")


def _pair(doc: dict[str, Any], where: str) -> Any:
    missing = [tag for tag in ("summary", "short_text") if not doc.get(tag)]
    if missing:
        return BadRow(f"{where}: no <{missing[0]}> in this <doc>, or an empty one (task lcsts).")
    return {"id": doc["id"], "text": doc["short_text"], "summary": doc["summary"]}


def fill(record: dict[str, Any], predictions: Sequence[str | None]) -> dict[str, Any]:
    """The official record with the generated summary."""
    return {**record, "summary": predictions[0] or ""}


# finetune_cpm2_lcsts.sh of TsinghuaAI/CPM-2-Finetune; the batch size is that of all processes.
CPM_2 = {
    "schedule": "constant",
    "warmup": 1,
    "patience": 0,
    "clip": 1.0,
    "batch_size": 128,
    "max_length": 512,
    "beams": 1,
}

TASK = Task(
    name="lcsts",
    version=1,
    capability="language generation",
    kind="summarisation",
    suites=("cuge", "cuge-lite", "cpm-2"),
    source=Source(
        title="LCSTS: A Large Scale Chinese Short Text Summarization Dataset",
        paper="https://aclanthology.org/D15-1229",
        licence="research use, on application",
        obtain="cuge.baai.ac.cn provides train.jsonl, valid.jsonl and test_public.jsonl; on "
        "application PART_I.txt, PART_II.txt and PART_III.txt",
        sizes=(2_401_000, 9_000, 700),
        editions={"LCSTS": (2_400_591, 10_666, 1_106), "LCSTS, scores from 3": (None, 8_685, 725)},
    ),
    files=Files(
        columns=COLUMNS,
        aliases=ALIASES,
        names={
            split: (*STEMS[split], name, f"DATA/{name}")
            for split, name in {
                "train": "PART_I.txt",
                "dev": "PART_II.txt",
                "test": "PART_III.txt",
            }.items()
        },
        read=read,
    ),
    answer=Generate(column="summary", max_new_tokens=50),
    templates=(Template("cpm-ant", "{text}摘要：{answer}"), Template("cpm-2", "{text}{answer}")),
    metrics=("rouge_l_char_f", "rouge_l_cpm2", "rouge_1_char_f", "rouge_2_char_f"),
    recipe={"lr": 2e-2, "max_length": 256, "batch_size": 128, "epochs": 20, "patience": 20},
    sample_recipe={"lr": 2e-2, "batch_size": 32, "epochs": 20},
    recipes={
        "cpm-2": NamedRecipe(
            {**CPM_2, "lr": 3e-6, "epochs": 10},
            "cpm-2",
        ),
        "cpm-2-prompt": NamedRecipe(
            {**CPM_2, "lr": 0.1, "epochs": 20},
            "cpm-2",
        ),
    },
    published={
        "CPM-2": 35.9,
        "CPM-2, prompt": 34.17,
        "mT5-XXL": 34.8,
        "mT5-large": 34.4,
        "mT5-small": 33.1,
    },
    published_source="CUGE lite board; prompt tuning: CPM-2 report (2021)",
    protocol=(
        "A row is a text and its summary, unchanged from the files. Of the original PART_II and "
        "PART_III, only pairs with a score from 3 count (8,685 and 725), as in the paper. The "
        "summary is generated after the text and the words 摘要：. This wording is this project's, "
        "since CPM-Ant's own input files are not public; CPM-2's template has no words. CUGE asks "
        "for ROUGE-L over characters; rouge_l_char_f is its F1. The published results come from "
        "CPM-2's scorer, which weights recall more (beta 1.2): compare them with rouge_l_cpm2, "
        "in per cent."
    ),
    submission=Submission("LCSTS.jsonl", fill),
)
