"""GCRC: multiple-choice reading comprehension of college entrance exams (Tan et al., ACL 2021)"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cpm_tune.data.readers import Records, in_turn, json_items, json_lines, starts_with
from cpm_tune.task import Files, Options, Row, Source, Submission, Task, Template
from cpm_tune.task.answers import is_withheld

LETTERS = "ABCD"


def read(paths: tuple[Path, ...], split: str) -> Records:
    """The items of {"data": [...]}; also of a bare array or of lines."""
    return in_turn(paths, _items)


def _items(path: Path) -> Records:
    if path.suffix == ".jsonl":
        return json_lines(path)
    return json_items(path, "" if starts_with(path) == "[" else "data")


def rows(record: Any) -> Iterator[Row]:
    """One row; the answer's letter becomes the number of the option."""
    letter = None if is_withheld(record.get("answer")) else record["answer"]
    if letter is not None and (not isinstance(letter, str) or letter not in tuple(LETTERS)):
        raise ValueError(f"answer is {letter!r}, expected A, B, C or D")
    yield {
        "id": record.get("id"),
        "passage": record["passage"],
        "question": record["question"],
        "options": record["options"],
        "answer": None if letter is None else LETTERS.index(letter),
    }


def fill(record: Any, predictions: Sequence[Any]) -> Any:
    """The official record with the letter of the chosen option."""
    return {**record, "answer": LETTERS[predictions[0]]}


def document(records: list[Any]) -> Any:
    """The file around the records."""
    return {"data": records}


TASK = Task(
    name="gcrc",
    version=1,
    capability="discourse",
    kind="reading comprehension",
    suites=("cuge",),
    source=Source(
        title="GCRC: A New Challenging MRC Dataset from Gaokao Chinese for Explainable Evaluation",
        paper="https://aclanthology.org/2021.findings-acl.113",
        licence="non-commercial research only",
        obtain="CUGE's GCRC.zip; keep the files' names",
        sizes=(6_994, 863, 900),
        editions={"GCRC": (6_994, 863, 862)},
        checksums={
            "dea0f33b7216f20faacecc660908fe63974d72b232e6fbe4c55ae43fa4d2d9c2": "GCRC"  # test
        },
    ),
    files=Files(
        columns=("passage", "question", "options", "answer"),
        texts=("options",),
        rows=rows,
        read=read,
    ),
    answer=Options(options="options", column="answer", most=4),
    templates=(
        Template("cpm-ant", "{passage}问题：{question}选项：{option}[是否正确]"),
        Template(
            "numbered",
            "问题：{question}选项：{options}文章：{passage}答案：{answer}",
            ("一", "二", "三", "四"),
        ),
    ),
    metrics=("accuracy",),
    recipe={"lr": 1e-3, "batch_size": 6, "max_length": 1024, "epochs": 20},
    sample_recipe={"lr": 2e-2, "batch_size": 32, "max_length": 384, "epochs": 10},
    protocol=(
        "The metric is the accuracy of the chosen option, GCRC's first subtask. The evidence "
        "subtask is the task gcrc_evidence; error types are not predicted. Each option is placed "
        "after passage and question, and the highest logit of 是 decides, even if the question "
        "asks for the wrong statement. A passage that is too long loses its end. An empty option "
        "is scored like any other. Title, evidence and error types are not shown. No earlier work "
        "published a recipe; the default is C3's."
    ),
    submission=Submission("GCRC.json", fill, document),
)
