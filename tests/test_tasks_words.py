"""Tasks on words, entities, relations, corrections, humour: real files, wrong records, fuzz."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import REAL_DATA
from hypothesis import given, settings
from hypothesis import strategies as st
from words_cases import NAMES, SAMPLE, TASKS, VALID, WRITTEN, lines, parsed, read

from cpm_tune.data.files import rows_of
from cpm_tune.data.splits import find_splits
from cpm_tune.errors import UserError
from cpm_tune.task.answers import gold


@pytest.mark.parametrize("name", NAMES)
def test_prompts_show_every_field_and_never_the_answer(name: str) -> None:
    task = TASKS[name]
    rows = read(task, find_splits(task, SAMPLE / name)["test"].path, "test")
    for template in task.templates:
        for row in rows[:20]:
            option = template.options[0] if template.options else "答案在此"
            before, shown, _ = template.render(row, option)
            assert shown == option
            assert all(row[field] in before for field in task.shown)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_is_read_back_on_the_sample_data(name: str) -> None:
    task = TASKS[name]
    for split, file in find_splits(task, SAMPLE / name).items():
        for row in read(task, file.path, split):
            expected = row["target"] if name == "yaclc" else gold(task, row)
            assert parsed(task, row["target"], row) == expected


@pytest.mark.parametrize(
    ("name", "file", "rows"),
    [
        ("pku_seg", "pku_seg/pku_test_gold.head.utf8", 791),
        ("wordseg_weibo", "wordseg_weibo/nlpcc2016-wordseg-dev.dat", 2088),
        ("cmeee", "cmeee/select_dev.json", 500),
        ("finre", "finre/valid.cuge.jsonl", 1489),
        ("finre", "finre/valid.txt", 1489),
    ],
)
def test_real_files_are_read_whole_and_every_answer_survives_the_round_trip(
    name: str, file: str, rows: int
) -> None:
    path = REAL_DATA / file
    if not path.exists():
        pytest.skip("the real data is not here")
    task = TASKS[name]
    found = read(task, path)
    assert len(found) == rows
    for row in found:
        assert parsed(task, row["target"], row) == gold(task, row)
        assert row["text"] in task.templates[0].render(row, "")[0]


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("pku_segpos", {"span_list": [{"start": 1, "end": 9, "type": "n"}]}, "span 1, 1 to 9"),
        ("pku_segpos", {"span_list": [{"start": 1, "type": "n"}]}, "no field 'end'"),
        (
            "pku_segpos",
            {"span_list": [{"start": i, "end": 2, "type": "n"} for i in (0, 2)]},
            "two spans overlap at character 2",
        ),
        ("cmeee", {"entities": [{"start_idx": 3, "end_idx": 9, "type": "dis"}]}, "3 to 9 is not"),
        ("cmeee", {"entities": [{"start_idx": 0, "end_idx": 1, "type": "x"}]}, "the type is 'x'"),
        (
            "cmeee",
            {"entities": [{"start_idx": 0, "end_idx": 1, "type": "dis", "entity": "肺炎"}]},
            "entity 1: '肺炎' is not at 0 to 1",
        ),
        ("finre", {"label_desc": "买下"}, "'买下' is not one of the 44 relations"),
        ("finre", {"label": 44, "label_desc": None}, "label is 44, expected 0 to 43"),
        ("finre", {"head": 7}, "'head' is 7, expected text"),
        ("yaclc", {"sentence_annos": [{"correction": " "}]}, "a correction is empty"),
        ("yaclc", {"sentence_text": ""}, "the sentence is empty"),
    ],
)
def test_a_wrong_record_is_one_sentence_with_its_place(
    tmp_path: Path, name: str, change: dict[str, Any], said: str
) -> None:
    path = lines(tmp_path / "dev.jsonl", VALID[name], {**VALID[name], **change})
    with pytest.raises(UserError) as caught:
        read(TASKS[name], path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert said in str(caught.value)
    assert f"task {name}" in str(caught.value)


def test_a_row_of_another_width_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "dev.txt"
    path.write_text("甲\t乙\t收购\t甲收购乙\n甲\t乙\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"dev\.txt:2: 2 columns, expected 4"):
        read(TASKS["finre"], path)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("pku_segpos", "span_list"),
        ("cmeee", "entities"),
        ("finre", "label label_desc"),
        ("yaclc", "sentence_annos"),
    ],
)
def test_a_test_split_without_answers_is_read_and_a_dev_split_is_not(
    tmp_path: Path, name: str, answer: str
) -> None:
    record = {key: value for key, value in VALID[name].items() if key not in answer.split()}
    task = TASKS[name]
    (row,) = read(task, lines(tmp_path / "test_public.jsonl", record), "test")
    assert row["target"] is None
    assert gold(task, row) is None
    with pytest.raises(UserError, match="no field"):
        read(task, lines(tmp_path / "dev.jsonl", record))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 50) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)


@st.composite
def spoilt(draw: st.DrawFn, record: Any) -> Any:
    """The record with one value somewhere replaced by any other."""
    if isinstance(record, dict | list) and record and draw(st.booleans()):
        copy = dict(record) if isinstance(record, dict) else list(record)
        key = draw(st.sampled_from(sorted(copy) if isinstance(copy, dict) else range(len(copy))))
        copy[key] = draw(spoilt(copy[key]))
        return copy
    return draw(JSON)


@pytest.mark.parametrize("name", sorted(VALID))
def test_any_record_gives_rows_or_a_sentence(name: str) -> None:
    @settings(max_examples=40, deadline=None)
    @given(JSON | spoilt(VALID[name]))
    def check(record: Any) -> None:
        for row in rows_of(TASKS[name], "f:1", record):
            assert isinstance(row, dict) or row.message.startswith("f:1: ")

    assert all(isinstance(row, dict) for row in rows_of(TASKS[name], "f:1", VALID[name]))
    check()


SOURCES = st.text(alphabet="发热肺炎 患者，。/第2处a", min_size=1, max_size=20).filter(str.strip)
SAID = st.text(max_size=30) | st.text(
    alphabet="发热肺炎；：疾病症状（第2处）/nv a，。无", max_size=40
)


@pytest.mark.parametrize("name", WRITTEN)
def test_any_text_is_read_or_not_but_never_an_exception(name: str) -> None:
    task = TASKS[name]

    @settings(max_examples=80, deadline=None)
    @given(SAID, SOURCES)
    def check(text: str, source: str) -> None:
        found = parsed(task, text, {"text": source})
        if found is None:
            return
        if name in ("pku_seg", "wordseg_weibo"):
            assert "".join(found) == source
        elif name in ("pku_segpos", "cmeee"):
            assert all(0 <= first <= last < len(source) for first, last, _ in found)
        elif name == "yaclc":
            assert found == text.strip()
        else:
            assert found == "NA" or found in text

    check()
