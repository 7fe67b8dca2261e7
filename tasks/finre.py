"""FinRE: which relation two companies have in a line of financial news (Li et al., ACL 2019)"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cpm_tune.data.readers import Layout, lines, records
from cpm_tune.task import BadRow, Files, Generate, Row, Source, Submission, Task, Template
from cpm_tune.task.answers import is_withheld

_NAMES = (  # by official number; 0 is no relation
    "NA 注资 拥有 纠纷 自己 增持 重组 买资 签约 持股 交易 入股 转让 成立 分析 合作 帮助 发行 "
    "商讨 合并 竞争 订单 减持 合资 收购 借壳 欠款 被发行 被转让 被成立 被注资 被持股 被拥有 "
    "被收购 被帮助 被借壳 被买资 被欠款 被增持 拟收购 被减持 被分析 被入股 被拟收购"
)
RELATIONS = tuple(_NAMES.split())
NONE = "NA"
NONE_WRITTEN = "未知"  # what the model writes for it; the official files say N/A or unknown
NONE_OFFICIAL = ("N/A", "NA", "unknown")


def read(paths: tuple[Path, ...], split: str, layout: Layout) -> Iterator[tuple[str, Any]]:
    """CUGE's JSON records, or lines of head, tail, relation and sentence (.txt, .tsv)."""
    for path in paths:
        if path.suffix not in (".txt", ".tsv"):
            yield from records(path, (), {}, (), layout)
            continue
        for where, line in lines(path):
            cells = line.split("\t") if isinstance(line, str) else []
            if isinstance(line, BadRow):
                yield where, line
            elif len(cells) == 4:
                yield where, dict(zip(("head", "tail", "label_desc", "text"), cells, strict=True))
            elif line.strip():
                fault = f"{len(cells)} columns, expected 4 (head, tail, relation, sentence)"
                yield where, BadRow(f"{where}: {fault}.")


def rows(record: Any) -> list[Row]:
    """Head, tail and sentence, with the relation's name if the record has one."""
    row = {"head": _mention(record, "head"), "tail": _mention(record, "tail")}
    row["text"] = record["text"]
    relation = _relation(record.get("label"), record.get("label_desc"))
    return [row if relation is None else {**row, "relation": relation, "name": _written(relation)}]


def _relation(number: Any, name: Any) -> str | None:
    """The relation by its official number, its name, or both, which must agree; None if both are
    withheld."""
    number, name = (None if is_withheld(value) else value for value in (number, name))
    if number is not None and (
        isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(RELATIONS)
    ):
        raise ValueError(f"label is {number!r}, expected 0 to {len(RELATIONS) - 1}")
    if name is None:
        return None if number is None else RELATIONS[number]
    relation = NONE if name in NONE_OFFICIAL else name
    if relation not in RELATIONS:
        raise ValueError(f"'{name}' is not one of the {len(RELATIONS)} relations")
    if number is not None and RELATIONS[number] != relation:
        raise ValueError(
            f"label {number} is {RELATIONS[number]}, but label_desc says '{name}', which is "
            f"{RELATIONS.index(relation)}"
        )
    return str(relation)


def _mention(record: Any, side: str) -> Any:
    value = record[side]
    return value["mention"] if isinstance(value, dict) else value


def _written(relation: str) -> str:
    return NONE_WRITTEN if relation == NONE else relation


def parse(text: str, row: Row) -> str | None:
    """The relation of that name, or None."""
    name = text.strip().rstrip("。")
    return next((relation for relation in RELATIONS if _written(relation) == name), None)


def fill(record: Any, predictions: Sequence[Any]) -> Any:
    """The record with the predicted relation (none if the text is unparsed)."""
    number = RELATIONS.index(predictions[0] or NONE)
    return {**record, "label": number, "label_desc": RELATIONS[number] if number else "N/A"}


TASK = Task(
    name="finre",
    version=1,
    capability="word-sentence",
    kind="relation extraction",
    suites=("cuge",),
    source=Source(
        title="Chinese Relation Extraction with Multi-Grained Information and External Linguistic "
        "Knowledge",
        paper="https://aclanthology.org/P19-1430",
        licence="MIT",
        obtain="the data folder of the paper's code (train.txt, valid.txt, test.txt) or CUGE's "
        "download page",
        sizes=(13_486, 1_489, 3_727),
        editions={"FinRE": (13_486, 1_489, 3_727)},
        checksums=dict.fromkeys(
            (
                "94842290437ca421cf93b544a4caf8f3e9355ffe754ac04780a072dcb984c72c",  # valid.txt
                "11fce309784734c7257cbf4952206ebabff7dfaed5352c6ad7aa6aa09a9cd0d1",  # CUGE's valid
            ),
            "FinRE",
        ),
    ),
    files=Files(
        columns=("head", "tail", "text", "relation", "name"),
        aliases={"label": "relation"},
        read=read,
        rows=rows,
    ),
    answer=Generate(column="name", gold="relation", parse=parse, max_new_tokens=8),
    templates=(Template("cpm-ant", "{text}文中“{head}”对“{tail}”的关系是：{answer}"),),
    metrics=("relation_f1", "relation_precision", "relation_recall"),
    recipe={"lr": 5e-3, "max_length": 320, "batch_size": 32, "epochs": 20, "patience": 10},
    sample_recipe={"lr": 2e-2, "max_length": 256},
    protocol=(
        "The Chinese name of the relation is generated from the sentence, the head and the tail. "
        "未知 stands for no relation (label 0; N/A in CUGE's files, unknown in the original ones, "
        "NA here). A text that is none of the 44 names is unparsed and counts as no relation. "
        "Precision, recall and F1 are micro averages over the relations other than NA, as CUGE "
        "asks. A row's number and its name must agree, in the original numbering from 0 to 43. "
        "About one official row in ten repeats head, tail and sentence with another relation; "
        "each is a separate row, as in the files. CUGE's report gives 7.5k training rows, but its "
        "file has 13.5k. No recipe has been published for CPM-Ant."
    ),
    submission=Submission("FinRE.jsonl", fill),
)
