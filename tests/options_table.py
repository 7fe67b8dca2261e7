"""What the tests of tasks with options, documents, words and facts share: official layouts with the
rows they give, wrong records, and submissions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cpm_tune.data.files import checked_rows
from cpm_tune.data.splits import find_splits
from cpm_tune.task import Row
from cpm_tune.task.registry import load_task

NAMES = (
    "ccpm",
    "clozet",
    "c3",
    "gcrc",
    "gcrc_evidence",
    "chid",
    "sogou_log",
    "wantwords",
    "kbqa",
)
TASKS = {name: load_task(name) for name in NAMES}


def read(name: str, folder: Path, split: str) -> list[Row]:
    task = TASKS[name]
    return list(checked_rows(task, find_splits(task, folder, (split,))[split]))


def put(path: Path, content: Any) -> None:
    """Write bytes or a text as they are, a list as lines of JSON, another value as a document."""
    if isinstance(content, list):
        content = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in content)
    elif not isinstance(content, str | bytes):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


CLOZE = {"story": "猫来了。<mask>鱼没了。", "plot0": "猫睡了。", "plot1": "猫吃了鱼。"}
CLOZE_ROW = {"before": "猫来了。", "after": "鱼没了。", "plots": ["猫睡了。", "猫吃了鱼。"]}
C3_TEXT = [["男：走吧。", "女：好。"], [{"question": "走吗？", "choice": ["走", "不走"]}], "1-2"]
C3_ROW = {"passage": "男：走吧。\n女：好。", "question": "走吗？", "choices": ["走", "不走"]}
EXAM = {"id": "x", "title": "鱼", "passage": "鱼在水里。", "question": "正确的一项是"}
EXAM |= {"options": ["鱼在天上。", "鱼在水里。", "", "鱼在山上。"]}
EXAM_ROW = {key: EXAM[key] for key in ("passage", "question", "options")}
WHY = {"evidences": [["鱼在水里。"], ["鱼", "在水里。"], [], ["鱼在水里。"]]}
IDIOMS = ["画蛇添足", "一举两得", "井底之蛙"]
SHARED = {"content": ["甲#idiom000001#乙#idiom000002#。", "丙#idiom000003#"], "candidates": IDIOMS}
SHARED_ROWS = [
    {"id": "000001", "before": "甲", "after": "乙____。", "candidates": IDIOMS},
    {"id": "000002", "before": "甲____乙", "after": "。", "candidates": IDIOMS},
    {"id": "000003", "before": "丙", "after": "", "candidates": IDIOMS},
]
ANSWERS = {"#idiom000001#": 2, "#idiom000002#": 0, "#idiom000003#": 1}
SHARED_RIGHT = [{**row, "target": t} for row, t in zip(SHARED_ROWS, (2, 0, 1), strict=True)]
FACT = "<question id=1>\t鱼在哪？\n<triple id=1>\t鱼 ||| 在 ||| 水\n<answer id=1>\t水里\n"
FACT_ROW = {"id": "1", "question": "鱼在哪？", "target": "水里"}
DOCS = [{"sogou_id": "a", "title": "猫"}, {"sogou_id": "b", "title": "鱼"}]
VERSE = {"translation": "月亮很亮。", "choices": ["月明", "月暗", "日明", "日暗"]}

Layout = tuple[str, dict[str, Any], str, list[dict[str, Any]]]
LAYOUTS: dict[str, Layout] = {
    "ccpm": ("ccpm", {"valid.jsonl": [{**VERSE, "answer": 0}]}, "dev", [{**VERSE, "target": 0}]),
    "ccpm without answers": (
        "ccpm",
        {"test_public.jsonl": [VERSE]},
        "test",
        [{**VERSE, "target": None}],
    ),
    "clozet": (
        "clozet",
        {"train.jsonl": [{**CLOZE, "label": "1"}, {**CLOZE, "label": 0}]},
        "train",
        [{**CLOZE_ROW, "target": 1}, {**CLOZE_ROW, "target": 0}],
    ),
    "clozet of LOT, without labels": (
        "clozet",
        {"test.jsonl": [CLOZE]},
        "test",
        [{**CLOZE_ROW, "target": None}],
    ),
    "c3, both parts, with a byte-order mark": (
        "c3",
        {
            "c3-d-dev.json": b"\xef\xbb\xbf"
            + json.dumps([[C3_TEXT[0], [{**C3_TEXT[1][0], "answer": "不走"}], "1-2"]]).encode(),
            "c3-m-dev.json": json.dumps(
                [[C3_TEXT[0], [{**C3_TEXT[1][0], "answer": "走"}] * 2, "3-4"]], indent=1
            ),
        },
        "dev",
        [
            {"id": "1-2-1", **C3_ROW, "target": 1},
            {"id": "3-4-1", **C3_ROW, "target": 0},
            {"id": "3-4-2", **C3_ROW, "target": 0},
        ],
    ),
    "c3 as one array, without answers": (
        "c3",
        {"test_public.json": json.dumps([C3_TEXT])},
        "test",
        [{"id": "1-2-1", **C3_ROW, "target": None}],
    ),
    "c3 in lines": (
        "c3",
        {"test_public.jsonl": [C3_TEXT, C3_TEXT]},
        "test",
        [{"id": "1-2-1", **C3_ROW, "target": None}] * 2,
    ),
    "gcrc": (
        "gcrc",
        {"train.json": {"version": "1", "data": [{**EXAM, "answer": "C"}]}},
        "train",
        [{"id": "x", **EXAM_ROW, "target": 2}],
    ),
    "gcrc without answers": (
        "gcrc",
        {"test_public.json": {"data": [EXAM, {**EXAM, "answer": ""}]}},
        "test",
        [{"id": "x", **EXAM_ROW, "target": None}] * 2,
    ),
    "gcrc in lines": (
        "gcrc",
        {"valid.jsonl": [{**EXAM, "answer": "A"}]},
        "dev",
        [{"id": "x", **EXAM_ROW, "target": 0}],
    ),
    "gcrc_evidence: questions without evidences have no rows": (
        "gcrc_evidence",
        {"train.json": {"data": [{**EXAM, "evidences": []}, {**EXAM, **WHY}]}},
        "train",
        [
            {
                "id": f"x-{n}",
                "passage": EXAM["passage"],
                "question": EXAM["question"],
                "statement": EXAM["options"][n],
                "target": target,
            }
            for n, target in enumerate(["鱼在水里。", "鱼在水里。", "", "鱼在水里。"])
        ],
    ),
    "gcrc_evidence without answers": (
        "gcrc_evidence",
        {"test_public.json": {"data": [EXAM]}},
        "test",
        [
            {
                "id": f"x-{n}",
                "passage": EXAM["passage"],
                "question": EXAM["question"],
                "statement": EXAM["options"][n],
                "target": None,
            }
            for n in range(4)
        ],
    ),
    "chid of CLUE": (
        "chid",
        {"train.json": [SHARED], "train_answer.json": ANSWERS},
        "train",
        SHARED_RIGHT,
    ),
    "chid of the competition": (
        "chid",
        {
            "dev.txt": [SHARED],
            "dev_answer.csv": "".join(f"{tag},{n}\r\n" for tag, n in ANSWERS.items()),
        },
        "dev",
        SHARED_RIGHT,
    ),
    "chid of CLUE without answers": (
        "chid",
        {"test1.1.json": [SHARED]},
        "test",
        [{**row, "target": None} for row in SHARED_ROWS],
    ),
    "chid of FewCLUE": (
        "chid",
        {
            "train_few_all.json": [
                {"id": 7, "candidates": IDIOMS, "content": "甲#idiom#乙", "answer": 1}
            ]
        },
        "train",
        [{"id": "7", "before": "甲", "after": "乙", "candidates": IDIOMS, "target": 1}],
    ),
    "chid of the paper": (
        "chid",
        {
            "train.txt": [
                {
                    "content": "甲#idiom#乙#idiom#",
                    "realCount": 2,
                    "groundTruth": ["井底之蛙", "一举两得"],
                    "candidates": [IDIOMS, IDIOMS[1:]],
                }
            ]
        },
        "train",
        [
            {"before": "甲", "after": "乙____", "candidates": IDIOMS, "target": 2},
            {"before": "甲____乙", "after": "", "candidates": IDIOMS[1:], "target": 0},
        ],
    ),
    "sogou_log pairs": (
        "sogou_log",
        {"train.jsonl": [{"query": "吃鱼", "pos_doc": "鱼", "neg_doc": "猫"}]},
        "train",
        [{"query": "吃鱼", "documents": ["鱼", "猫"], "target": [1.0, 0.0]}],
    ),
    "sogou_log queries without grades": (
        "sogou_log",
        {"test_public.jsonl": [{"query_id": 5, "query": "吃鱼", "doc": DOCS}]},
        "test",
        [{"id": "5", "query": "吃鱼", "documents": ["猫", "鱼"], "target": None}],
    ),
    "sogou_log queries with grades": (
        "sogou_log",
        {
            "test.jsonl": [
                {
                    "query_id": "q",
                    "query": "吃鱼",
                    "doc": [{**DOCS[0], "relevance": 0}, {**DOCS[1], "relevance": 2}],
                }
            ]
        },
        "test",
        [{"id": "q", "query": "吃鱼", "documents": ["猫", "鱼"], "target": [0.0, 2.0]}],
    ),
    "wantwords": (
        "wantwords",
        {"train.jsonl": [{"definition": "卖书的店", "word": "书店"}]},
        "train",
        [{"definition": "卖书的店", "target": "书店"}],
    ),
    "wantwords of the project": (
        "wantwords",
        {
            "train.json": json.dumps(
                [
                    {"word": "书店", "lexnames": [], "definitions": "卖 书 的 店"},
                    {"word": "花店", "definitions": " "},
                ]
            )
        },
        "train",
        [{"definition": "卖 书 的 店", "target": "书店"}],
    ),
    "wantwords without words": (
        "wantwords",
        {"test_public.jsonl": [{"definition": "卖书的店"}]},
        "test",
        [{"definition": "卖书的店", "target": None}],
    ),
    "kbqa with rules, CRLF and a byte-order mark": (
        "kbqa",
        {"nlpcc2018.kbqa.train": "\ufeff" + (FACT + "=====\n").replace("\n", "\r\n") * 2},
        "train",
        [FACT_ROW, FACT_ROW],
    ),
    "kbqa without rules, triples and last newline": (
        "kbqa",
        {
            "nlpcc-iccpol-2016.kbqa.dev-data": '<question id="1">\t鱼在哪？\n'
            '<answer id="1">\t水里\n\n'
            "<question id=2>\t猫呢？\n<answer id=2>\t床 上"
        },
        "dev",
        [FACT_ROW, {"id": "2", "question": "猫呢？", "target": "床 上"}],
    ),
    "kbqa without answers": (
        "kbqa",
        {
            "nlpcc2018.kbqa.test": "<question id=1>\t鱼在哪？\n"
            "<answer id=1>\t\n<question id=2>\t猫呢？"
        },
        "test",
        [{**FACT_ROW, "target": None}, {"id": "2", "question": "猫呢？", "target": None}],
    ),
}

# A wrong record, and what is said of it
WRONG: list[tuple[str, Any, str]] = [
    ("ccpm", {**VERSE, "answer": 4}, "answer is 4, expected 0 to 3"),
    ("ccpm", {**VERSE, "answer": "0"}, "answer is '0', expected 0 to 3"),
    ("ccpm", {**VERSE, "choices": "月明", "answer": 0}, "expected a list of texts"),
    ("ccpm", {**VERSE, "choices": ["月"] * 5, "answer": 0}, "5 options, expected 2 to 4"),
    ("clozet", {**CLOZE, "story": "没有空", "label": "0"}, "the story has 0 <mask>, expected one"),
    ("clozet", {**CLOZE, "label": "2"}, "label is '2', expected 0 or 1"),
    ("clozet", {**CLOZE, "label": True}, "label is True, expected 0 or 1"),
    ("clozet", {"story": "<mask>", "plot0": "甲", "label": "0"}, "no field 'plot1'"),
    ("clozet", CLOZE, "no field 'label'"),
    ("c3", [["甲"], []], "expected an array of lines, questions and id"),
    ("c3", {"a": 1}, "expected an array of lines, questions and id"),
    ("c3", [["甲"], [{"question": "问", "choice": ["甲"], "answer": "乙"}], "1"], "question 1: "),
    ("c3", [["甲"], [{"question": "问", "answer": "乙"}], "1"], "no field 'choice'"),
    ("gcrc", {**EXAM, "answer": "E"}, "answer is 'E', expected A, B, C or D"),
    ("gcrc", {**EXAM, "answer": "AB"}, "answer is 'AB', expected A, B, C or D"),
    ("gcrc", {**EXAM, "answer": 1}, "answer is 1, expected A, B, C or D"),
    ("gcrc", EXAM, "no field 'answer'"),
    ("gcrc_evidence", {**EXAM, "evidences": [["甲"]]}, "1 lists of evidence for 4 options"),
    ("gcrc_evidence", EXAM, "no field 'evidences'"),
    ("chid", {"content": "没有空", "candidates": IDIOMS, "answer": 0}, "no blank such as #idiom#"),
    ("chid", {"content": "#idiom#" * 2, "candidates": IDIOMS, "answer": 0}, "2 blanks, but one"),
    ("chid", {"content": "#idiom#", "candidates": IDIOMS, "answer": 3}, "expected 0 to 2"),
    ("chid", {"content": "#idiom#", "candidates": IDIOMS}, "no field 'answer'"),
    (
        "chid",
        {"content": "#idiom#", "candidates": [IDIOMS], "groundTruth": ["半途而废"]},
        "'半途而废' is not one of the candidates",
    ),
    ("sogou_log", {"query": "问", "pos_doc": "甲"}, "no field 'neg_doc'"),
    (
        "sogou_log",
        {"query_id": 1, "query": "问", "doc": [{**DOCS[0], "relevance": 1}, DOCS[1]]},
        "document 2 has no relevance",
    ),
    (
        "sogou_log",
        {"query_id": 1, "query": "问", "doc": [{**d, "relevance": "高"} for d in DOCS]},
        "expected 2 numbers from 0",
    ),
    ("wantwords", {"definition": "店", "word": ""}, "no field 'word', or an empty one"),
    ("wantwords", {"definition": ["店"], "word": "店"}, "the definition is ['店'], expected text"),
    ("wantwords", {"word": "店"}, "no field 'definition'"),
]

# A record, its predictions, and the record to hand in
SUBMITTED: list[tuple[str, Any, list[Any], Any]] = [
    ("ccpm", VERSE, [2], {**VERSE, "answer": 2}),
    ("clozet", CLOZE, [1], {**CLOZE, "label": "1"}),
    ("c3", C3_TEXT, [1], [C3_TEXT[0], [{**C3_TEXT[1][0], "answer": "不走"}], "1-2"]),
    ("gcrc", EXAM, [3], {**EXAM, "answer": "D"}),
    (
        "gcrc_evidence",
        EXAM,
        ["甲", "", "乙", "丙"],
        {**EXAM, "evidences": [["甲"], [], ["乙"], ["丙"]]},
    ),
    (
        "sogou_log",
        {"query_id": 5, "query": "吃鱼", "doc": DOCS},
        [[0.5, 2.0]],
        {"query_id": 5, "query": "吃鱼", "doc": DOCS[::-1]},
    ),
    (
        "wantwords",
        {"definition": "店"},
        [["书店", "花店"]],
        {"definition": "店", "word": ["书店", "花店"]},
    ),
    (
        "kbqa",
        {"id": "1", "question": "鱼在哪？", "triple": "鱼 ||| 在 ||| 水"},
        [" 水\n里 "],
        FACT.replace("水里", "水 里") + "=" * 50,
    ),
    (
        "kbqa",
        {"id": "1", "question": "鱼？"},
        [None],
        "<question id=1>\t鱼？\n<answer id=1>\t\n" + "=" * 50,
    ),
]
