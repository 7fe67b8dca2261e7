"""GCRC's second subtask: the sentences that decide about an option (Tan et al., ACL 2021)"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cpm_tune.data.readers import Records
from cpm_tune.task import Files, Generate, Row, Source, Submission, Task, Template
from cpm_tune.task.registry import load_task

GCRC = load_task("gcrc")
assert GCRC.files.read is not None
assert GCRC.submission is not None
read_gcrc, document = GCRC.files.read, GCRC.submission.document


def read(paths: tuple[Path, ...], split: str) -> Records:
    """As for gcrc. Most training questions have no evidence; such records have no rows, except in a
    test split, whose answers are withheld."""
    for where, record in read_gcrc(paths, split):
        if split == "test" and isinstance(record, dict) and not record.get("evidences"):
            record = {**record, "evidences": None}
        yield where, record


def rows(record: Any) -> Iterator[Row]:
    """One row per option of a record with evidence."""
    options, evidences, name = record["options"], record["evidences"], record.get("id")
    if evidences == []:
        return
    if evidences is not None and len(evidences) != len(options):
        raise ValueError(f"{len(evidences)} lists of evidence for {len(options)} options")
    for number, evidence in enumerate(evidences or ()):
        if not isinstance(evidence, list):
            raise TypeError(f"evidence {number + 1} is {type(evidence).__name__}, expected a list")
    for number, option in enumerate(options):
        yield {
            "id": f"{name}-{number}" if name not in (None, "") else None,
            "passage": record["passage"],
            "question": record["question"],
            "statement": option,
            "evidence": None if evidences is None else "".join(evidences[number]),
        }


def fill(record: Any, predictions: Sequence[Any]) -> Any:
    """The official record with the generated evidence of each option."""
    return {**record, "evidences": [[text] if text else [] for text in predictions]}


TASK = Task(
    name="gcrc_evidence",
    version=1,
    capability="discourse",
    kind="reading comprehension",
    source=Source(
        title="GCRC: A New Challenging MRC Dataset from Gaokao Chinese for Explainable Evaluation",
        paper="https://aclanthology.org/2021.findings-acl.113",
        licence="non-commercial research only",
        obtain="the files of gcrc",
        sizes=(8_084, 3_452, None),
        editions={"GCRC": (8_084, 3_452, 3_448)},
    ),
    files=Files(
        columns=("passage", "question", "statement", "evidence"),
        rows=rows,
        read=read,
    ),
    answer=Generate(column="evidence", max_new_tokens=160, beams=1),
    templates=(
        Template("cpm-ant", "文章：{passage}问题：{question}选项：{statement}依据：{answer}"),
    ),
    metrics=("char_f1",),
    recipe={"lr": 1e-3, "batch_size": 6, "max_length": 1024, "epochs": 20},
    sample_recipe={"lr": 2e-2, "batch_size": 32, "max_length": 384, "max_new_tokens": 32},
    protocol=(
        "There is one row per option. The model generates the option's evidence sentences, "
        "joined, which are compared as bags of characters; the score is the mean over options. "
        "(An option without evidence is right if nothing is generated.) The organisers remove "
        "punctuation before they compare; char_f1 removes only whitespace. Systems of the shared "
        "task point at sentences of the passage. Here the sentences are generated greedily, with "
        "at most decode.max_new_tokens tokens, so long evidence is cut. This is not one of CUGE's "
        "21 datasets and does not enter the index."
    ),
    # Lines of records; the organisers' file is {"data": [...]} around them.
    submission=Submission("GCRC.json", fill, document),
)
