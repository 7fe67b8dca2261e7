"""What the tests of the tasks on words, entities, relations, corrections and humour share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conftest import REPOSITORY

from cpm_tune.data.files import checked_rows
from cpm_tune.data.splits import SplitFile
from cpm_tune.task import Generate, Row, Task
from cpm_tune.task.registry import load_task

NAMES = ("pku_seg", "wordseg_weibo", "pku_segpos", "cmeee", "finre", "yaclc", "spr")
TASKS = {name: load_task(name) for name in NAMES}
WRITTEN = tuple(name for name in NAMES if name != "spr")
SAMPLE = REPOSITORY / "tasks" / "sample"
SIZES = {"train": 600, "dev": 150, "test": 200}

VALID: dict[str, dict[str, Any]] = {
    "pku_seg": {"words": ["我", "来", "了", "。"]},
    "wordseg_weibo": {"text": "我来了。"},
    "pku_segpos": {
        "tokens": list("我来了。"),
        "span_list": [{"start": 0, "end": 0, "type": "r"}, {"start": 1, "end": 2, "type": "v"}],
    },
    "cmeee": {
        "text": "发热与肺炎",
        "entities": [{"start_idx": 0, "end_idx": 1, "type": "sym", "entity": "发热"}],
    },
    "finre": {"text": "甲收购乙", "label": 24, "label_desc": "收购", "head": "甲", "tail": "乙"},
    "yaclc": {
        "sentence_text": "我去了昨天",
        "sentence_annos": [{"is_grammatical": 1, "correction": "我昨天去了", "edits_count": 2}],
    },
}


def read(task: Task, path: Path, split: str = "dev") -> list[Row]:
    return list(checked_rows(task, SplitFile(split, (path,), "")))


def parsed(task: Task, text: str, row: Row) -> Any:
    assert isinstance(task.answer, Generate)
    assert task.answer.parse is not None
    return task.answer.parse(text, row)


def filled(task: Task, record: Any, predictions: list[Any]) -> Any:
    assert task.submission is not None
    return task.submission.fill(record, predictions)


def lines(path: Path, *content: Any) -> Path:
    path.write_text("".join(json.dumps(c, ensure_ascii=False) + "\n" for c in content), "utf-8")
    return path
