"""SPR: is this utterance of a sitcom dialogue humorous? (CCL 2020, humour computing)"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cpm_tune.data.readers import Layout, records
from cpm_tune.task import STEMS, BadRow, Choice, Files, Row, Source, Submission, Task, Template
from cpm_tune.task.answers import is_withheld

COLUMNS = ("ID", "Dialogue_id", "Utterance_id", "Speaker", "Sentence")  # and Label


def read(paths: tuple[Path, ...], split: str, layout: Layout) -> Iterator[tuple[str, Row | BadRow]]:
    """One row per utterance, with the earlier ones of the same dialogue as its context."""
    for path in paths:
        dialogue, context = None, list[str]()
        for where, record in records(path, COLUMNS, {}, (), layout):
            fault = _fault(record)
            if fault is not None:
                yield where, fault if isinstance(fault, BadRow) else BadRow(f"{where}: {fault}.")
                continue
            if record["Dialogue_id"] != dialogue:
                dialogue, context = record["Dialogue_id"], []
            speaker, sentence = str(record["Speaker"]).strip(), str(record["Sentence"]).strip()
            label = record.get("Label")
            yield (
                where,
                {
                    "id": record["ID"],
                    "context": "".join(context),
                    "speaker": speaker,
                    "sentence": sentence,
                    "label": None if is_withheld(label) else label,
                    "official": record,
                },
            )
            context.append(f"{speaker}：{sentence} ")


def _fault(record: Any) -> BadRow | str | None:
    if isinstance(record, BadRow):
        return record
    if not isinstance(record, dict):
        return f"expected an object with {', '.join(COLUMNS)}"
    missing = [name for name in COLUMNS if record.get(name) is None]
    return f"no field '{missing[0]}' (task spr)" if missing else None


def fill(record: Any, predictions: Sequence[Any]) -> Any:
    """The utterance with its predicted label."""
    return {**record, "official": {**record["official"], "Label": predictions[0]}}


def document(records: list[Any]) -> str:
    """The .csv file, in the columns of the official one."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]["official"]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(record["official"] for record in records)
    return text.getvalue().removesuffix("\n")


TASK = Task(
    name="spr",
    version=1,
    capability="discourse",
    kind="humour detection",
    suites=("cuge",),
    source=Source(
        title="SPR of CUGE, from CCL 2020's evaluation of punchlines in situation comedies",
        paper="https://arxiv.org/abs/2112.13610",
        licence="not stated",
        obtain="CUGE's download page; train, dev and test as .csv",
        sizes=(12_700, 1_600, 4_800),
    ),
    files=Files(
        columns=("context", "speaker", "sentence", "label"),
        blank=("context",),
        names={
            "train": ("train", "cn_train"),
            "dev": (*STEMS["dev"], "cn_dev"),
            "test": (*STEMS["test"], "cn_test"),
        },
        read=read,
    ),
    answer=Choice(labels=(0, 1)),
    templates=(
        Template(
            "cpm-ant",
            "{context}{speaker}：{sentence}最后一句话{option}[是否正确]",
            ("不好笑", "好笑"),
            keep_end=("context",),
        ),
    ),
    metrics=("f1", "precision", "recall"),
    recipe={"lr": 5e-3, "max_length": 256, "batch_size": 32, "epochs": 20, "patience": 10},
    sample_recipe={"lr": 2e-2, "max_length": 192},
    protocol=(
        "Every utterance is a row. The earlier utterances of the same dialogue, in the order of "
        "the file, are its context, which loses its beginning if it is too long. The logit of 是 "
        "scores the two answers (CPM-Ant's protocol). F1 is that of label 1, humorous; CUGE asks "
        "for F1 without naming the class. The utterances of a dialogue must be consecutive in the "
        "file. No recipe has been published for CPM-Ant."
    ),
    submission=Submission("SPR.csv", fill, document),
)
