"""LCSTS: write the headline of a short news text. (Hu et al., EMNLP 2015)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cpm_tune.task import Files, Generate, Source, Submission, Task, Template


def fill(record: dict[str, Any], predictions: Sequence[str | None]) -> dict[str, Any]:
    """The official record with the generated summary."""
    return {**record, "summary": predictions[0] or ""}


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
        obtain="cuge.baai.ac.cn provides train.jsonl, valid.jsonl and test_public.jsonl",
        sizes=(2_401_000, 9_000, 700),
        editions={"LCSTS": (2_400_591, 10_666, 1_106), "LCSTS, scores from 3": (None, 8_685, 725)},
    ),
    files=Files(
        columns=("text", "summary"),
        aliases={
            **dict.fromkeys(("content", "article", "short_text", "正文", "内容", "文本"), "text"),
            **dict.fromkeys(("title", "headline", "标题", "摘要"), "summary"),
        },
    ),
    answer=Generate(column="summary", max_new_tokens=50),
    templates=(Template("cpm-ant", "{text}摘要：{answer}"),),
    metrics=("rouge_l_char_f", "rouge_l_cpm2", "rouge_1_char_f", "rouge_2_char_f"),
    recipe={"lr": 2e-2, "max_length": 256, "batch_size": 128, "epochs": 20, "patience": 20},
    sample_recipe={"lr": 2e-2, "batch_size": 32, "epochs": 20},
    published={
        "CPM-2": 35.9,
        "CPM-2, prompt": 34.17,
        "mT5-XXL": 34.8,
        "mT5-large": 34.4,
        "mT5-small": 33.1,
    },
    published_source="CUGE lite board; prompt tuning: CPM-2 report (2021)",
    protocol=(
        "A row is a text and its summary, unchanged from the files. The summary is generated "
        "after the text and the words 摘要：. This wording is this project's, since CPM-Ant's own "
        "input files are not public. CUGE asks for ROUGE-L over characters; rouge_l_char_f is its "
        "F1. The published results come from CPM-2's scorer, which weights recall more (beta "
        "1.2): compare them with rouge_l_cpm2, in per cent."
    ),
    submission=Submission("LCSTS.jsonl", fill),
)
