"""OCNLI: does one sentence follow from another? (Hu et al., Findings of EMNLP 2020)"""

from collections.abc import Iterator
from typing import Any

from cpm_tune.task import STEMS, Choice, Files, Row, Source, Task, Template

LABELS = ("entailment", "neutral", "contradiction")


def rows(record: Any) -> Iterator[Row]:
    """A pair; none if its annotators did not agree, whose label is "-"."""
    if record.get("label") != "-":
        yield record


TASK = Task(
    name="ocnli",
    version=1,
    capability="language understanding",
    kind="natural language inference",
    suites=("cpm-1-zero-shot",),
    source=Source(
        title="OCNLI: Original Chinese Natural Language Inference",
        paper="https://arxiv.org/abs/2010.05444",
        licence="CC BY-NC 2.0",
        obtain="github.com/CLUEbenchmark/OCNLI or CLUE; keep the files' names",
        sizes=(50_000, 3_000, 3_000),
    ),
    files=Files(
        columns=("sentence1", "sentence2", "label"),
        names={
            "train": ("train", "train.50k.json", "train.30k.json", "train.10k.json"),
            "dev": STEMS["dev"],
            "test": STEMS["test"],
        },
        aliases={"premise": "sentence1", "hypothesis": "sentence2"},
        rows=rows,
    ),
    answer=Choice(labels=LABELS),
    templates=(
        Template(
            "cpm-ant",
            "{sentence1}和{sentence2}的意思{option}[是否正确]",
            ("一致", "无关", "矛盾"),
        ),
        Template(
            "cpm-1-zero-shot",
            "{sentence1}？{option}{sentence2}",
            ("对，", "也许，", "错，"),
            scoring="mean-nll",
            counts="after",
        ),
    ),
    metrics=("accuracy",),
    recipe={"lr": 5e-3, "batch_size": 32, "max_length": 256, "epochs": 10},
    sample_recipe={"lr": 1e-2, "batch_size": 32, "epochs": 10},
    protocol=(
        "A row is a premise, a hypothesis and one of three labels; pairs on which annotators did "
        "not agree (-) are left out, as the paper asks. Template cpm-1-zero-shot is CPM-1's form "
        "without training: the hypothesis follows the premise and 对, 也许 or 错, and the lowest "
        "mean NLL of the hypothesis (with the end mark) decides. OCNLI is part of CLUE, not of "
        "CUGE."
    ),
)
