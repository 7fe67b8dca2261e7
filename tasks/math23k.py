"""Math23K: write the equation that solves a word problem. (Wang et al., EMNLP 2017)"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from cpm_tune.task import Files, Generate, NamedRecipe, Row, Source, Submission, Task, Template

EQUATION = re.compile(r"[0-9.+\-*/^%()\[\]]+")
WIDE = {code + 0xFEE0: code for code in range(0x21, 0x7F)} | {ord("×"): "*", ord("÷"): "/"}


def rows(record: Any) -> Iterator[Row]:
    """One problem in Math23K's fields, or in CPM-2's (text, equation)."""
    text = record["text"] if "text" in record else record["original_text"]
    equation, answer = record.get("equation"), record.get("ans")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float | None):
        raise ValueError(f"'ans' is {answer!r}, expected a number or text")  # noqa: TRY004
    if equation is not None:
        equation = without_x(equation)
        answer = {"answer": equation if answer is None else str(answer)}
    else:
        answer = None
    yield {"problem": text, "equation": equation, "answer": answer}


def without_x(equation: str) -> str:
    """An equation "x=44*20" without "x="."""
    if not isinstance(equation, str):
        raise TypeError(f"'equation' is {type(equation).__name__}, expected text")
    return re.sub(r"^\s*[xX]\s*=\s*", "", equation)


def parse(text: str, row: Row) -> str | None:
    """The generated equation, in ASCII without blanks; None if it is not arithmetic."""
    equation = "".join(without_x(text.translate(WIDE)).split())
    return equation if EQUATION.fullmatch(equation) else None


def fill(record: dict[str, Any], predictions: Sequence[str | None]) -> dict[str, Any]:
    """The official record with the generated equation."""
    return {**record, "equation": f"x={predictions[0] or ''}"}


# finetune_cpm2_math.sh of TsinghuaAI/CPM-2-Finetune; the batch size is that of all processes.
CPM_2 = {
    "schedule": "constant",
    "warmup": 1,
    "patience": 0,
    "clip": 1.0,
    "max_length": 512,
    "beams": 1,
}

TASK = Task(
    name="math23k",
    version=1,
    capability="mathematical reasoning",
    kind="mathematics",
    suites=("cuge", "cuge-lite", "cpm-2"),
    source=Source(
        title="Math23K: Deep Neural Solver for Math Word Problems",
        paper="https://aclanthology.org/D17-1088",
        licence="not stated",
        obtain="cuge.baai.ac.cn provides train.jsonl, valid.jsonl and test_public.jsonl",
        sizes=(21_000, 1_000, 1_000),
        editions={"Math23K": (21_162, 1_000, 1_000)},
    ),
    files=Files(
        columns=("problem", "equation", "answer"),
        structures=("answer",),
        rows=rows,
        whole=("Math_23K.json", "math23k.json"),
    ),
    answer=Generate(column="equation", gold="answer", parse=parse, max_new_tokens=32),
    templates=(
        Template("cpm-ant", "{problem}列式：{answer}"),
        Template("cpm-2", "{problem}{answer}"),
    ),
    metrics=("equation_accuracy",),
    recipe={"lr": 5e-3, "max_length": 256, "batch_size": 16, "epochs": 100},
    sample_recipe={"lr": 2e-2, "batch_size": 32, "epochs": 20},
    recipes={
        "cpm-2": NamedRecipe(
            {**CPM_2, "lr": 5e-6, "batch_size": 256, "epochs": 20},
            "cpm-2",
        ),
        "cpm-2-prompt": NamedRecipe(
            {**CPM_2, "lr": 0.1, "batch_size": 128, "epochs": 40},
            "cpm-2",
        ),
    },
    published={
        "CPM-2": 69.4,
        "CPM-2, prompt": 67.48,
        "mT5-XXL": 61.6,
        "mT5-large": 34.3,
        "mT5-small": 18.4,
    },
    published_source="CUGE lite board; prompt tuning: CPM-2 report (2021)",
    protocol=(
        "The model learns and generates the equation without x=. A row is right if the equation's "
        "value is the file's answer or, if the file has no answer, the value of the file's "
        "equation. Anything that is not arithmetic (digits, . + - * / ^ % and brackets) is "
        "counted as unparsed and wrong. CPM-2 evaluates the gold equation with Python's eval, "
        "which cannot compute mixed numbers, [ ] and ^; here both sides are computed exactly. Two "
        "of 1,000 known rows cannot be right: one equation contains a unit (80千米/小时), and one "
        "answer is not the value of its equation."
    ),
    submission=Submission("Math23K.jsonl", fill),
)
