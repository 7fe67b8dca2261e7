"""NCLS-EnZh: summarise an English news document in Chinese. (Zhu et al., EMNLP 2019)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cpm_tune.task import Files, Generate, Source, Submission, Task, Template


def fill(record: dict[str, Any], predictions: Sequence[str | None]) -> dict[str, Any]:
    """The official record with the generated summary."""
    return {**record, "summary": predictions[0] or ""}


TASK = Task(
    name="ncls_enzh",
    version=1,
    capability="multilingual",
    kind="cross-lingual summarisation",
    suites=("cuge",),
    source=Source(
        title="NCLS: Neural Cross-Lingual Summarization (EN2ZHSUM)",
        paper="https://aclanthology.org/D19-1302",
        licence="research use",
        obtain="cuge.baai.ac.cn provides train.jsonl, valid.jsonl and test_public.jsonl",
        sizes=(365_000, 3_000, 3_000),
    ),
    files=Files(
        columns=("document", "summary"), aliases={"text": "document", "article": "document"}
    ),
    answer=Generate(column="summary", max_new_tokens=128),
    templates=(Template("cpm-ant", "{document} 中文摘要：{answer}"),),
    metrics=("rouge_l_char_f", "rouge_1_char_f", "rouge_2_char_f"),
    recipe={"lr": 5e-3, "max_length": 1024, "batch_size": 16, "epochs": 10, "patience": 20},
    sample_recipe={"lr": 2e-2, "batch_size": 32, "epochs": 20},
    protocol=(
        "A row is an English document (field document, or text as in LCSTS) and its Chinese "
        "summary. A document that is too long loses its end. CUGE asks for ROUGE; it is computed "
        "over characters, as for LCSTS, and ROUGE-L ranks. Prompt and recipe are this project's; "
        "none have been published for CPM-Ant, whose vocabulary has little English."
    ),
    submission=Submission("NCLSEnZh.jsonl", fill),
)
