"""ClozeT: which of two sentences was taken out of the story? (LOT, Guan et al., TACL 2022)"""

from collections.abc import Iterator, Sequence
from typing import Any

from cpm_tune.task import Files, Options, Row, Source, Submission, Task, Template
from cpm_tune.task.answers import is_withheld

MASK = "<mask>"
LABELS = ("0", "1")


def rows(record: Any) -> Iterator[Row]:
    """One row: the story before and after the gap, the two plots, the number of the right one."""
    parts = record["story"].split(MASK)
    if len(parts) != 2:
        raise ValueError(f"the story has {len(parts) - 1} {MASK}, expected one")
    label = None if is_withheld(record.get("label")) else record["label"]
    if label is not None and str(label) not in LABELS:
        raise ValueError(f"label is {label!r}, expected 0 or 1")
    yield {
        "before": parts[0],
        "after": parts[1],
        "plots": [record["plot0"], record["plot1"]],
        "label": None if label is None else int(label),
    }


def fill(record: Any, predictions: Sequence[Any]) -> Any:
    """The official record with its label, a text as in the files."""
    return {**record, "label": str(predictions[0])}


TASK = Task(
    name="clozet",
    version=1,
    capability="discourse",
    kind="story cloze",
    suites=("cuge",),
    source=Source(
        title="LOT: A Story-Centric Benchmark for Chinese Long Text Understanding and Generation",
        paper="https://arxiv.org/abs/2108.12960",
        licence="not stated",
        obtain="CUGE's ClozeT.zip, or the folder clozet of LOT; keep the files' names",
        sizes=(600, 300, 300),
        editions={"LOT": (644, 294, 294)},
    ),
    files=Files(
        columns=("before", "after", "plots", "label"),
        texts=("plots",),
        blank=("before", "after"),
        rows=rows,
    ),
    answer=Options(options="plots", column="label", most=2),
    templates=(
        Template("cpm-ant", "{before}{option}{after}[是否正确]", keep_end=("before",)),
        Template(
            "numbered",
            "选项：{plots}文章：{before}____{after}答案：{answer}",
            ("一", "二"),
            keep_end=("before",),
        ),
    ),
    metrics=("accuracy",),
    recipe={"lr": 5e-3, "batch_size": 16, "max_length": 512, "epochs": 20},
    sample_recipe={"lr": 2e-2, "batch_size": 32, "epochs": 15},
    protocol=(
        "Each plot is placed in the gap, and the story with the higher logit of 是 at its end is "
        "chosen. A story that is too long loses characters at both ends, farthest from the gap. "
        "No earlier work published a prompt or a recipe for CPM models on this dataset; both are "
        "this project's."
    ),
    submission=Submission("ClozeT.jsonl", fill),
)
