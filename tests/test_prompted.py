"""Finished prompts: CPM-Ant's preprocessed rows as they are, CPM-Bee's records as plain rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import CLI, write_jsonl

from cpm_tune.data.splits import find_splits
from cpm_tune.data.store import Split, read_split
from cpm_tune.errors import UserError
from cpm_tune.task.registry import load_task

FORMS: dict[str, tuple[str, dict[str, Any], list[dict[str, Any]]]] = {
    "CPM-Ant, text": (
        "prompted_text",
        {"input": "问：一加一？答：", "target": "二"},
        [{"input": "问：一加一？答：", "target": "二"}],
    ),
    "CPM-Ant, options": (
        "prompted_choice",
        {"input": "一加一是", "options": ["一", "二", "三"], "target": 1},
        [{"input": "一加一是", "options": ["一", "二", "三"], "target": 1}],
    ),
    "CPM-Bee, one field": (
        "prompted_text",
        {"document": "今天天气", "<ans>": "很好"},
        [{"input": "今天天气", "target": "很好"}],
    ),
    "CPM-Bee, several fields": (
        "prompted_text",
        {"input": "今天天气真好", "prompt": "中翻英", "year": 2023, "<ans>": "Nice."},
        [{"input": "input：今天天气真好\nprompt：中翻英\nyear：2023", "target": "Nice."}],
    ),
    "CPM-Bee, blanks": (
        "prompted_text",
        {"document": "今天<mask_0>，去<mask_1>。", "<ans>": {"<mask_0>": "晴", "<mask_1>": "山上"}},
        [
            {"input": "今天____，去<mask_1>。", "target": "晴"},
            {"input": "今天<mask_0>，去____。", "target": "山上"},
        ],
    ),
    "CPM-Bee, options": (
        "prompted_choice",
        {
            "input": "他买了两个苹果。",
            "question": "他买了几个？",
            "options": {"<option_0>": "一", "<option_1>": "两个"},
            "<ans>": "<option_1>",
        },
        [
            {
                "input": "input：他买了两个苹果。\nquestion：他买了几个？",
                "options": ["一", "两个"],
                "target": 1,
            }
        ],
    ),
}


def read(task: str, folder: Path, record: dict[str, Any], test: dict[str, Any]) -> dict[str, Split]:
    folder.mkdir(exist_ok=True)
    for split, one in (("train", record), ("eval", record), ("test", test)):
        write_jsonl(folder / f"{split}.jsonl", [one, one])
    found = find_splits(load_task(task), folder)
    return {name: read_split(load_task(task), file) for name, file in found.items()}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("withheld", [None, "", -1])
def test_every_form_is_read(tmp_path: Path, form: str, withheld: Any) -> None:
    task, record, expected = FORMS[form]
    answer = "<ans>" if "<ans>" in record else "target"
    hidden = record[answer]
    hidden = dict.fromkeys(hidden, withheld) if isinstance(hidden, dict) else withheld
    splits = read(task, tmp_path / "data", record, {**record, answer: hidden})
    for split in ("train", "dev"):
        rows = [{k: v for k, v in row.items() if k != "id"} for row in splits[split].rows]
        assert rows == expected * 2
    assert not splits["test"].labelled
    shown = [{k: v for k, v in row.items() if k != "id"} for row in splits["test"].rows]
    assert shown == [{**row, "target": None} for row in expected * 2]


@pytest.mark.parametrize(
    ("task", "record", "fault"),
    [
        (
            "prompted_text",
            {"document": "今天", "<ans>": {"<mask_0>": "晴"}},
            "no blank of the record",
        ),
        ("prompted_text", {"document": {"a": 1}, "<ans>": "晴"}, "'document' is dict"),
        ("prompted_text", {"input": "今天"}, "no field 'target'"),
        (
            "prompted_choice",
            {"input": "今天", "options": ["一", "二"], "target": 2},
            "expected 0 to 1",
        ),
        ("prompted_choice", {"input": "今天", "options": "一二", "target": 0}, "list of texts"),
        (
            "prompted_choice",
            {"input": "今天", "options": {"<option_0>": "一", "<option_1>": "二"}, "<ans>": "一"},
            "<ans> is '一', expected <option_0> or <option_1>",
        ),
    ],
)
def test_faults_are_told_with_the_line(
    tmp_path: Path, task: str, record: dict[str, Any], fault: str
) -> None:
    with pytest.raises(UserError, match=r"jsonl:1: ") as caught:
        read(task, tmp_path / "data", record, record)
    assert fault in str(caught.value)


@pytest.mark.parametrize("task", ["prompted_text", "prompted_choice"])
def test_the_model_sees_the_files_own_words(tmp_path: Path, cli: CLI, task: str) -> None:
    record = FORMS["CPM-Ant, text" if task == "prompted_text" else "CPM-Ant, options"][1]
    read(task, tmp_path / "data", record, record)
    code, shown, error = cli("show", task, "--data", tmp_path / "data", "--rows", 1, "--text")
    assert code == 0, error
    lines = shown.splitlines()[-3:]
    options = [f"  一加一是{option}[是否正确]" for option in ("一", "二", "三")]
    assert lines == options or lines[-1] == "  问：一加一？答：二"
