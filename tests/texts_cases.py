"""Small official files for the tasks whose answer is a text, and what they hold. Used by tests."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from cpm_tune.common.paths import shipped
from cpm_tune.data.files import checked_rows
from cpm_tune.data.splits import find_splits
from cpm_tune.task import Row, Task

NAMES = ("lcsts", "cepsum", "adgen", "kdconv", "wmt20_enzh", "ncls_enzh", "math23k", "stc")


def load(path: Path) -> ModuleType:
    """A task file or a generator as a module."""
    spec = importlib.util.spec_from_file_location(f"texts_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


MODULES = {name: load(shipped("tasks") / f"{name}.py") for name in NAMES}
TASKS: dict[str, Task] = {name: module.TASK for name, module in MODULES.items()}


def read(task: Task, folder: Path, split: str = "dev") -> list[Row]:
    return list(checked_rows(task, find_splits(task, folder, (split,))[split]))


def put(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
    return folder


def lines(*records: Any) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


# What the official files hold, small: task, files, split, and the columns' values in each row.

DIALOGUE = {
    "name": "松鹤湖",
    "messages": [
        {"message": "去过松鹤湖吗？"},
        {
            "message": "去过，在云南。",
            "attrs": [
                {"attrname": "地点", "attrvalue": "云南", "name": "松鹤湖"},
                {"attrname": "门票", "attrvalue": "免费", "name": "松鹤湖"},
            ],
        },
        {"message": "好的。"},
    ],
}
TURNS = [
    ("去过松鹤湖吗？", "松鹤湖，地点，云南；松鹤湖，门票，免费", "去过，在云南。"),
    ("去过松鹤湖吗？\n去过，在云南。", "", "好的。"),
]
KEPT_BACK = {**DIALOGUE, "messages": [*DIALOGUE["messages"][:2], {"message": None}]}  # type: ignore[misc]
PROBLEM = {"id": "7", "original_text": "3盒4支，共几支？", "segmented_text": "3 盒 4 支"}
PRODUCT = {"table": {"商品": "包", "颜色": ["红", "蓝"]}, "source": "一个包。"}
SENTENCE = {"index": 0, "source": "你好。", "target": "Hello."}
ADVERT = {"content": "类型#裙*颜色#红色", "summary": "红裙。"}
FEATURES = "类型：裙，颜色：红色"
POSTS = [["你 好", "好 啊"], ["在 吗", "在 的"], ["你 好", "你 也 好"]]

LAYOUTS: dict[str, tuple[str, dict[str, str], str, list[tuple[Any, ...]]]] = {
    "LCSTS": (
        "lcsts",
        {"valid.jsonl": lines({"text": "甲", "summary": "乙"})},
        "dev",
        [("甲", "乙")],
    ),
    "LCSTS, test without answers": (
        "lcsts",
        {"test_public.jsonl": "\ufeff" + lines({"text": "甲"}).replace("\n", "\r\n\r\n")},
        "test",
        [("甲", None)],
    ),
    "CEPSUM": (
        "cepsum",
        {"train.jsonl": lines({**PRODUCT, "targets": ["好", "很好"]})},
        "train",
        [("商品：包；颜色：红、蓝", "一个包。", ["好", "很好"], "好")],
    ),
    "CEPSUM, test without answers": (
        "cepsum",
        {"test_public.jsonl": lines(PRODUCT, {**PRODUCT, "targets": []})},
        "test",
        2 * [("商品：包；颜色：红、蓝", "一个包。", None, None)],
    ),
    "E-Reviews": (
        "adgen",
        {"dev.jsonl": lines({"feature": [["类型", "裙"], ["颜色", "红色"]], "desc": "红裙。"})},
        "dev",
        [(FEATURES, f"{FEATURES}；", "红裙。")],
    ),
    "E-Reviews, test without answers": (
        "adgen",
        {"test_public.jsonl": lines({"feature": [["类型", "裙"]]})},
        "test",
        [("类型：裙", "类型：裙；", None)],
    ),
    "AdvertiseGen": (
        "adgen",
        {"train.json": lines(ADVERT)},
        "train",
        [(FEATURES, f"{FEATURES}；", "红裙。")],
    ),
    "KdConv": (
        "kdconv",
        {f"{name}/dev.json": json.dumps([DIALOGUE]) for name in ("film", "music")},
        "dev",
        TURNS * 2,
    ),
    "KdConv, CUGE": ("kdconv", {"train.jsonl": lines(DIALOGUE, DIALOGUE)}, "train", TURNS * 2),
    "KdConv, a message kept back": (
        "kdconv",
        {"test_public.jsonl": lines(KEPT_BACK)},
        "test",
        [(*TURNS[1][:2], None)],
    ),
    "WMT20": ("wmt20_enzh", {"valid.jsonl": lines(SENTENCE)}, "dev", [("Hello.", "你好。")]),
    "WMT20, CPM-2": (
        "wmt20_enzh",
        {"train.json": json.dumps([SENTENCE, SENTENCE])},
        "train",
        2 * [("Hello.", "你好。")],
    ),
    "WMT20, parallel text": (
        "wmt20_enzh",
        {"dev.en": "Hello.\r\nYes.\r\n", "dev.zh": "你好。\n是。"},
        "dev",
        [("Hello.", "你好。"), ("Yes.", "是。")],
    ),
    "WMT20, parallel text with answers": (
        "wmt20_enzh",
        {"test.en": "Hello.\n", "test.zh": "你好。\n"},
        "test",
        [("Hello.", "你好。")],
    ),
    "WMT20, text without answers": (
        "wmt20_enzh",
        {"test.en": "Hello.\n"},
        "test",
        [("Hello.", None)],
    ),
    "WMT20, test without answers": (
        "wmt20_enzh",
        {"test_public.jsonl": lines({"index": 0, "target": "Hello."})},
        "test",
        [("Hello.", None)],
    ),
    "NCLS": (
        "ncls_enzh",
        {"dev.jsonl": lines({"document": "A.", "summary": "甲"})},
        "dev",
        [("A.", "甲")],
    ),
    "NCLS, named as LCSTS": (
        "ncls_enzh",
        {"test_public.jsonl": lines({"text": "A."})},
        "test",
        [("A.", None)],
    ),
    "Math23K": (
        "math23k",
        {"train.jsonl": lines({**PROBLEM, "equation": "x=3*4", "ans": "12"})},
        "train",
        [("3盒4支，共几支？", {"answer": "12"}, "3*4")],
    ),
    "Math23K, CPM-2": (
        "math23k",
        {"valid.json": json.dumps([{"text": "3盒4支", "equation": "x=3*4"}])},
        "dev",
        [("3盒4支", {"answer": "3*4"}, "3*4")],
    ),
    "Math23K, test without answers": (
        "math23k",
        {"test_public.jsonl": lines(PROBLEM)},
        "test",
        [("3盒4支，共几支？", None, None)],
    ),
    "STC, train": (
        "stc",
        {"STC.json": json.dumps({"train": [*POSTS, ["说 啥", "甲", "乙"]], "valid": POSTS})},
        "train",
        [
            ("你好", ["好啊"], "好啊"),
            ("在吗", ["在的"], "在的"),
            ("你好", ["你也好"], "你也好"),
            ("说啥", ["甲"], "甲"),
            ("说啥", ["乙"], "乙"),
        ],
    ),
    "STC, valid": (
        "stc",
        {"STC.json": json.dumps({"train": [["不", "读"]], "valid": POSTS})},
        "dev",
        [("你好", ["好啊", "你也好"], "好啊"), ("在吗", ["在的"], "在的")],
    ),
    "STC, test": (
        "stc",
        {"STC_test.json": json.dumps({"test": POSTS[:2]})},
        "test",
        [("你好", ["好啊"], "好啊"), ("在吗", ["在的"], "在的")],
    ),
    "STC, test without answers": (
        "stc",
        {"STC_test.json": json.dumps({"test": [["你 好"]]})},
        "test",
        [("你好", None, None)],
    ),
}

# Task, files of dev, where the error is said to be, and what is said.
WRONG: dict[str, tuple[str, dict[str, str], str, str]] = {
    "no targets": ("cepsum", {"dev.jsonl": lines(PRODUCT)}, ":1", "no field 'targets'"),
    "targets not texts": (
        "cepsum",
        {"dev.jsonl": lines({**PRODUCT, "targets": [1]})},
        ":1",
        "'targets' is not a list of texts",
    ),
    "a table that is a list": (
        "cepsum",
        {"dev.jsonl": lines({"table": [], "source": "甲", "targets": ["乙"]})},
        ":1",
        "'table' is list, expected an object",
    ),
    "half a feature": (
        "adgen",
        {"dev.jsonl": lines(ADVERT, {"content": "类型#裙*红色", "summary": "甲"})},
        ":2",
        "('红色',) is not a name and a value",
    ),
    "no feature": (
        "adgen",
        {"dev.jsonl": lines({"feature": [], "desc": ""})},
        ":1",
        "list of features is empty",
    ),
    "one message": (
        "kdconv",
        {"music/dev.json": json.dumps([DIALOGUE, {"messages": [{"message": "甲"}]}])},
        "music/dev.json: item 2",
        "not a list of at least two",
    ),
    "half a triple": (
        "kdconv",
        {"dev.jsonl": lines({"messages": [{"message": "甲"}, {"attrs": [{"name": "乙"}]}]})},
        ":1",
        "no field 'attrname'",
    ),
    "an empty side": (
        "wmt20_enzh",
        {"dev.en": "Hello.\n\n", "dev.zh": "你好。\n是。\n"},
        "dev.en:2",
        "the English side is empty",
    ),
    "a short file": (
        "wmt20_enzh",
        {"dev.en": "Hello.\nYes.\n", "dev.zh": "你好。\n"},
        "dev.zh",
        "ends before dev.en",
    ),
    "an equation that is a number": (
        "math23k",
        {"dev.jsonl": lines({**PROBLEM, "equation": 3})},
        ":1",
        "'equation' is int",
    ),
    "no problem": ("math23k", {"dev.jsonl": lines({"equation": "x=1"})}, ":1", "'original_text'"),
    "no response": (
        "stc",
        {"STC.json": json.dumps({"valid": [["好", "好"], ["你 好"]]})},
        "STC.json: item 2",
        "no field 'response'",
    ),
    "an empty response": (
        "stc",
        {"STC.json": json.dumps({"valid": [["好", "好"], ["你", " "]]})},
        "STC.json: item 2",
        "a response is empty",
    ),
    "a post that is not a text": (
        "stc",
        {"STC.json": json.dumps({"valid": [[1, "好"]]})},
        "STC.json: item 1",
        "is not a text",
    ),
}
