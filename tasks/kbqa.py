"""KBQA: factoid questions on a knowledge base, answered without it (NLPCC, Duan and Tang 2018)"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cpm_tune.data.readers import Records, lines
from cpm_tune.task import BadRow, Files, Generate, Row, Source, Submission, Task, Template

TAGGED = re.compile(r'<(question|triple|answer) id="?(\w+)"?>\s?(.*)', re.DOTALL)
RULE = "=" * 50


def read(paths: tuple[Path, ...], split: str) -> Records:
    """Items of <question id=1>, <triple id=1>, <answer id=1> lines; a rule or the next question
    ends an item."""
    for path in paths:
        item: dict[str, str] = {}
        place = ""
        for where, text in lines(path):
            tagged = None if isinstance(text, BadRow) else TAGGED.fullmatch(text)
            if isinstance(text, BadRow):
                yield where, text
            elif tagged is None and text.strip("= \t"):
                fault = "expected <question id=1>, <triple id=1>, <answer id=1> or a rule of ="
                yield where, BadRow(f"{where}: {fault} (task kbqa).")
            elif tagged is not None and item and tagged[1] != "question":
                if tagged[2] != item["id"]:
                    fault = f"{tagged[1]} {tagged[2]} comes after question {item['id']}"
                    yield where, BadRow(f"{where}: {fault} (task kbqa).")
                item[tagged[1]] = tagged[3].strip()
                if tagged[1] == "answer" and not item["answer"]:
                    place = where
            elif tagged is not None or text.strip():
                if item:
                    yield place, item
                item = {"id": tagged[2], tagged[1]: tagged[3].strip()} if tagged else {}
                place = where
        if item:
            yield place, item


def rows(record: Any) -> Iterator[Row]:
    """One row; the triple is not shown. An official answer may be empty."""
    yield {
        "id": record["id"],
        "question": record["question"],
        "answer": record.get("answer"),
    }


def fill(record: Any, predictions: Sequence[Any]) -> Any:
    """The item in the official text form with the generated answer; an unparsed one is empty."""
    tagged = {**record, "answer": " ".join((predictions[0] or "").split())}
    names = [name for name in ("question", "triple", "answer") if name in tagged]
    return "\n".join([*(f"<{n} id={record['id']}>\t{tagged[n]}" for n in names), RULE])


TASK = Task(
    name="kbqa",
    version=1,
    capability="information acquisition and question answering",
    kind="open-domain question answering",
    suites=("cuge",),
    source=Source(
        title="Overview of the NLPCC 2018 Shared Task: Open Domain QA",
        paper="https://doi.org/10.1007/978-3-319-99501-4_43",
        licence="not stated",
        obtain="CUGE's KBQA.zip or NLPCC's files, named *kbqa*train*, *kbqa*dev*, *kbqa*test*; "
        "there is no official dev split",
        sizes=(24_000, None, 600),
        editions={
            "NLPCC 2016": (14_609, None, 9_870),
            "NLPCC 2017": (None, None, 7_631),
        },
    ),
    files=Files(
        columns=("question", "answer"),
        names={
            "train": ("*kbqa*train*", "train.txt"),
            "dev": ("*kbqa*dev*", "*kbqa*valid*", "dev.txt", "valid.txt"),
            "test": ("*kbqa*test*", "test.txt"),
        },
        rows=rows,
        read=read,
    ),
    answer=Generate(column="answer", max_new_tokens=32, beams=3),
    templates=(Template("cpm-ant", "问题：{question}答案：{answer}"),),
    metrics=("exact_match", "char_f1"),
    recipe={"lr": 5e-3, "batch_size": 32, "max_length": 128, "epochs": 20, "dev_rows": 1_000},
    sample_recipe={"lr": 6e-2, "batch_size": 16, "epochs": 15},
    protocol=(
        "Closed book: only the question is shown, neither the triple nor a knowledge base, so "
        "scores are far below those of systems that query NLPCC's. The answer is the whole "
        "generated text, compared without normalising (the files are in lower case). An answer "
        "that lists several things with | is one text. Answers that are longer than "
        "decode.max_new_tokens, or that have characters outside the vocabulary, cannot be right: "
        "with CPM-Ant's own vocabulary, 24 and 167 of 1,748 answers of NLPCC 2016 (it has no "
        "full-width brackets). The official data has no dev split; without one, every tenth "
        "question of train is dev."
    ),
    submission=Submission("KBQA.txt", fill),
)
