"""CEPSUM: write a short recommendation of a product from its attributes and description.
(Li et al., AAAI 2020)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cpm_tune.task import Files, Generate, Row, Source, Submission, Task, Template


def rows(record: Any) -> Iterator[Row]:
    """One product: its attributes as one text, its description, its references."""
    table, source, targets = record["table"], record["source"], record.get("targets") or None
    if targets is not None and not (
        isinstance(targets, list) and all(isinstance(text, str) for text in targets)
    ):
        raise ValueError("'targets' is not a list of texts")
    yield {
        "table": attributes(table),
        "source": source,
        "summary": None if targets is None else targets[0],
        "references": targets,
    }


def attributes(table: Any) -> str:
    """The attributes as "name：value；name：value"; a value may be a list."""
    if not isinstance(table, dict):
        raise TypeError(f"'table' is {type(table).__name__}, expected an object")
    parts = []
    for name, value in table.items():
        values = value if isinstance(value, list) else [value]
        if not values or not all(
            isinstance(v, str | int | float) and not isinstance(v, bool) for v in values
        ):
            raise ValueError(f"the table's '{name}' is {value!r}, expected text or a list of texts")
        parts.append(f"{name}：{'、'.join(map(str, values))}")
    return "；".join(parts)


def fill(record: dict[str, Any], predictions: Sequence[str | None]) -> dict[str, Any]:
    """The official record with the generated recommendation as its only target."""
    return {**record, "targets": [predictions[0] or ""]}


TASK = Task(
    name="cepsum",
    version=1,
    capability="language generation",
    kind="product summarisation",
    suites=("cuge",),
    source=Source(
        title="CEPSUM: Aspect-Aware Multimodal Summarization for Chinese E-Commerce Products",
        paper="https://ojs.aaai.org/index.php/AAAI/article/view/6332",
        licence="not stated",
        obtain="cuge.baai.ac.cn provides train.jsonl, valid.jsonl and test_public.jsonl",
        sizes=(434_000, 5_000, 5_000),
    ),
    files=Files(
        columns=("table", "source", "summary", "references"),
        structures=("references",),
        aliases={"targets": "summary"},
        rows=rows,
    ),
    answer=Generate(column="summary", gold="references", max_new_tokens=128),
    templates=(Template("cpm-ant", "属性：{table} 介绍：{source} 推荐：{answer}"),),
    metrics=("rouge_l_jieba_f", "rouge_1_jieba_f", "rouge_2_jieba_f"),
    recipe={"lr": 5e-3, "max_length": 768, "batch_size": 32, "epochs": 20, "patience": 20},
    sample_recipe={"lr": 2e-2, "batch_size": 32, "epochs": 20},
    protocol=(
        "A row is a product: its attributes (written as 名：值；名：值), its description, and its "
        "references. The run learns the first reference. Predictions are compared with all of "
        "them, and the best F1 counts. The metrics are ROUGE-1, -2 and -L (F1) over the words of "
        "jieba, as in CUGE. CUGE does not state which of the three ranks; this project chose "
        "ROUGE-L. Prompt and recipe are this project's too; none have been published for CPM-Ant."
    ),
    submission=Submission("CEPSUM.jsonl", fill),
)
