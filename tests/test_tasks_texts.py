"""Tasks whose answer is a text: official layouts, wrong records, parsers, real data."""

from __future__ import annotations

import ast
import json
import operator
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from conftest import REAL_DATA
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from texts_cases import LAYOUTS, MODULES, TASKS, WRONG, put, read

from cpm_tune.data.files import checked_rows, official_records, rows_of
from cpm_tune.data.splits import find_splits
from cpm_tune.errors import UserError
from cpm_tune.task import Row, Task
from cpm_tune.task.answers import gold


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_official_layout_gives_its_rows(tmp_path: Path, layout: str) -> None:
    name, files, split, expected = LAYOUTS[layout]
    task = TASKS[name]
    shown = [column for column in task.files.columns if column != task.answer.column]
    found = read(task, put(tmp_path, files), split)
    assert [tuple(row[column] for column in (*shown, "target")) for row in found] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("今天 天气 很 好", "今天天气很好"),
        ("今 天 天 气 很 好 。", "今天天气很好。"),
        ("i p h o n e 很 贵", "iphone很贵"),
        ("用 iphone 6 听 hello world", "用iphone 6听hello world"),
        ("2 0 1 2 年", "2012年"),
        (" 好 , 好 ", "好,好"),
        ("", ""),
    ],
)
def test_words_and_characters_of_stc_are_joined(text: str, expected: str) -> None:
    assert MODULES["stc"].joined(text) == expected


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_record_is_named_with_its_place(tmp_path: Path, fault: str) -> None:
    name, files, where, said = WRONG[fault]
    with pytest.raises(UserError) as caught:
        read(TASKS[name], put(tmp_path, files))
    message = str(caught.value)
    assert str(tmp_path) in message
    assert where in message
    assert said in message
    assert "\n" not in message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
FIELDS = sorted(
    {"text", "summary", "document", "table", "source", "targets", "feature", "desc", "content"}
    | {"messages", "name", "index", "target", "original_text", "equation", "ans"}
)
MESSAGE = st.fixed_dictionaries({}, optional={"message": JSON, "attrs": JSON}) | JSON
RECORD = JSON | st.dictionaries(st.sampled_from(FIELDS), JSON | st.lists(MESSAGE, max_size=3))


@settings(max_examples=150, deadline=None)
@given(record=RECORD)
def test_whatever_a_record_is_it_gives_rows_or_one_of_three_errors(record: Any) -> None:
    for module in MODULES.values():
        if hasattr(module, "rows"):
            try:
                found = list(module.rows(record))
            except (ValueError, KeyError, TypeError):
                continue
            assert all(isinstance(row, dict) for row in found)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(items=JSON | st.lists(st.lists(st.text(max_size=6), max_size=4), max_size=4))
def test_whatever_the_array_of_stc_holds_it_gives_rows_or_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, items: Any
) -> None:
    document = json.dumps({"train": items, "valid": items})
    folder = put(tmp_path_factory.mktemp("stc"), {"STC.json": document})
    for split in ("train", "dev"):
        bad: list[str] = []
        try:
            list(
                checked_rows(TASKS["stc"], find_splits(TASKS["stc"], folder, (split,))[split], bad)
            )
        except UserError as error:
            bad = [str(error)]
        assert all(str(folder) in message for message in bad)


@settings(max_examples=300, deadline=None)
@given(text=st.text() | st.text("x=0123456789.+-*/%^()[] "))
def test_the_parser_of_equations_gives_arithmetic_or_nothing(text: str) -> None:
    found = MODULES["math23k"].parse(text, {})
    assert found is None or re.fullmatch(r"[0-9.+\-*/^%()\[\]]+", found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3*4", "3*4"),
        (" x = 3 * (4-1)", "3*(4-1)"),
        ("20%^2", "20%^2"),
        ("[1+2]/3", "[1+2]/3"),
        ("", None),
        ("３×（4－1）÷2", "3*(4-1)/2"),
        ("三*4", None),
        ("3*y", None),
    ],
)
def test_equations_are_parsed(text: str, expected: str | None) -> None:
    assert MODULES["math23k"].parse(text, {}) == expected


REAL: dict[str, tuple[str, str, str, int]] = {
    "lcsts": ("lcsts", "lcsts", "dev", 1000),
    "E-Reviews": ("adgen", "adgen/dev.cuge.jsonl", "dev", 1070),
    "AdvertiseGen": ("adgen", "adgen/advertisegen_dev.head.json", "dev", 300),
    "kdconv": ("kdconv", "kdconv", "dev", 2622 + 2541),
    "math23k": ("math23k", "math23k", "dev", 1000),
    "wmt20": ("wmt20_enzh", "wmt20_enzh/newstest2019_enzh.jsonl", "dev", 1997),
}


def real(which: str, tmp_path: Path) -> tuple[Task, list[Row]]:
    name, place, split, n = REAL[which]
    path = REAL_DATA / place
    if not path.exists():
        pytest.skip(f"the real {which} is not here")
    if path.is_file():
        (tmp_path / f"{split}.jsonl").symlink_to(path)
    found = read(TASKS[name], path if path.is_dir() else tmp_path, split)
    assert len(found) == n
    return TASKS[name], found


@pytest.mark.parametrize("which", REAL)
def test_real_data_reads_renders_and_survives_the_round_trip(which: str, tmp_path: Path) -> None:
    task, found = real(which, tmp_path)
    lost = 0
    for row in found:
        for template in task.templates:
            before, answer, after = template.render(row, row["target"])
            assert all(row[field] in before for field in template.fields)
            assert (answer, after) == (row["target"], "")
        assert row["target"].strip()
        if task.answer.parse is not None:  # type: ignore[union-attr]
            lost += task.answer.parse(row["target"], row) != row["target"]  # type: ignore[union-attr]
        elif gold(task, row) != row["target"]:
            assert gold(task, row)[0] == row["target"]
    assert lost == (which == "math23k")  # one equation holds a unit


OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def worked_out(text: str) -> Fraction:
    """An equation's value by Python's grammar: an oracle that shares no code with the project."""
    text = text.replace("[", "(").replace("]", ")").replace("^", "**")
    text = re.sub(r"(\d+(?:\.\d+)?)%", r"(\1/100)", text)
    text = re.sub(r"(?<![\d.])(\d+)\(", r"\1+(", text)  # a mixed number

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Constant):
            return Fraction(str(node.value))
        assert isinstance(node, ast.BinOp)
        return OPERATORS[type(node.op)](value(node.left), value(node.right))

    return value(ast.parse(text, mode="eval").body)


def test_real_equations_come_out_at_their_answers(tmp_path: Path) -> None:
    task, found = real("math23k", tmp_path)
    wrong = 0
    for row in found:
        written = MODULES["math23k"].parse(row["target"], row)
        answer = worked_out(gold(task, row)["answer"])
        wrong += written is None or abs(worked_out(written) - answer) >= Fraction(1, 10_000)
    assert wrong == 2  # one holds a unit, the answer of another is not what it comes out at


@pytest.mark.parametrize("which", REAL)
def test_a_filled_submission_reads_back_as_what_was_predicted(which: str, tmp_path: Path) -> None:
    task, _ = real(which, tmp_path)
    path = REAL_DATA / REAL[which][1]
    folder = path if path.is_dir() else tmp_path
    file = find_splits(task, folder, ("dev",))["dev"]
    assert task.submission is not None
    for where, record in list(official_records(task, file))[:40]:
        known = [row[task.answer.column] for row in rows_of(task, where, record)]  # type: ignore[index]
        said = [f"{number}+1" for number in range(len(known))]
        filled = task.submission.fill(record, said)
        again = [row[task.answer.column] for row in rows_of(task, where, filled)]  # type: ignore[index]
        assert again == said
        assert [row[task.answer.column] for row in rows_of(task, where, record)] == known  # type: ignore[index]


def test_a_prediction_that_was_not_parsed_is_submitted_as_an_empty_text() -> None:
    record = {"table": {}, "source": "甲"}
    assert TASKS["cepsum"].submission.fill(record, [None])["targets"] == [""]  # type: ignore[union-attr]
