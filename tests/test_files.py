"""Readers: every accepted layout gives the same rows; every fault is named with file and line."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import pytest
from conftest import REAL_DATA, rows, write_jsonl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpm_tune.data.files import checked_rows
from cpm_tune.data.splits import SplitFile, find_splits
from cpm_tune.data.store import read_split
from cpm_tune.errors import UserError
from cpm_tune.task.registry import load_task

LCQMC = load_task("lcqmc")


def split_file(path: Path, split: str = "dev") -> SplitFile:
    return SplitFile(split, (path,), hashlib.sha256(path.read_bytes()).hexdigest())


def texts(path: Path) -> list[tuple[str, str, int]]:
    found = read_split(LCQMC, split_file(path)).rows
    return [(r["sentence1"], r["sentence2"], r["target"]) for r in found]


EXPECTED = [(r["sentence1"], r["sentence2"], r["label"]) for r in rows(6)]


def table(delimiter: str, header: list[str] | None, newline: str) -> str:
    lines = [header] if header else []
    lines += [[str(value) for value in row] for row in EXPECTED]
    return newline.join(delimiter.join(line) for line in lines) + newline


LAYOUTS = {
    "dev.jsonl": "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows(6)),
    "valid.json": "".join(json.dumps(r) + "\r\n\r\n" for r in rows(6)),
    "eval.jsonl": "\ufeff" + "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows(6)),
    "dev.tsv": table("\t", ["sentence1", "sentence2", "label"], "\n"),
    "valid.tsv": table("\t", ["text_a", "text_b", "label"], "\r\n"),
    "dev.txt": table("\t", None, "\r\n"),
    "dev.csv": table(",", ["sentence1", "sentence2", "label"], "\r\n"),
    "valid.csv": "\ufeff" + table(",", None, "\n"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(LAYOUTS[name].encode())
    found = find_splits(LCQMC, tmp_path, ("dev",))
    assert found["dev"].path.name == name
    assert found["dev"].sha256 == hashlib.sha256(LAYOUTS[name].encode()).hexdigest()
    assert texts(tmp_path / name) == EXPECTED


def test_header_columns_may_be_in_any_order_with_others_between(tmp_path: Path) -> None:
    path = tmp_path / "dev.tsv"
    path.write_text("label\tnote\ttext_b\ttext_a\n1\tx\t乙\t甲\n", encoding="utf-8")
    assert texts(path) == [("甲", "乙", 1)]


def test_a_quote_in_a_tab_separated_file_is_only_a_character(tmp_path: Path) -> None:
    path = tmp_path / "dev.tsv"
    path.write_text('他说"好\t"是的\t0\n', encoding="utf-8")
    assert texts(path) == [('他说"好', '"是的', 0)]


GOOD = json.dumps(rows(1)[0], ensure_ascii=False)
FAULTS = {
    "a truncated JSON line": ("dev.jsonl", GOOD + "\n" + GOOD[:30] + "\n", ":2:", "whole JSON"),
    "an array": ("dev.jsonl", GOOD + "\n[1]\n", ":2:", "found list"),
    "a missing field": ("dev.jsonl", '{"sentence1": "a", "label": 1}\n', ":1:", "'sentence2'"),
    "a missing label": (
        "dev.jsonl",
        '{"sentence1": "a", "sentence2": "b"}\n',
        ":1:",
        "no field 'label'",
    ),
    "a label outside the set": (
        "dev.jsonl",
        GOOD + "\n" + GOOD.replace('"label": 0', '"label": 2') + "\n",
        ":2:",
        "label is 2, expected 0 or 1",
    ),
    "a boolean label": ("dev.jsonl", GOOD.replace(": 0}", ": true}"), ":1:", "label is True"),
    "a field that is not text": (
        "dev.jsonl",
        '{"sentence1": 3, "sentence2": "b", "label": 0}',
        ":1:",
        "'sentence1' is 3, expected text",
    ),
    "deep nesting": ("dev.jsonl", "[" * 100_000 + "\n", "item 0", "nested"),
    "a missing column": ("dev.tsv", "text_a\tlabel\n甲\t1\n", ":1:", "no column 'sentence2'"),
    "a short row": ("dev.tsv", "甲\t乙\t1\n甲\t1\n", ":2:", "2 columns, expected 3"),
    "a long row": ("dev.csv", "甲,乙,1\n甲,乙,丙,1\n", ":2:", "4 columns, expected 3"),
    "an open quote": ("dev.csv", '甲,乙,1\n"甲,乙,1\n', ":2:", "a quote opens here"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_file_and_line(tmp_path: Path, fault: str) -> None:
    name, content, where, said = FAULTS[fault]
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_split(LCQMC, split_file(path))
    message = str(caught.value)
    assert str(path) in message
    assert where in message
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["dev.jsonl", "dev.tsv", "dev.csv"])
def test_text_that_is_not_utf8_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes("甲\t乙\t1\n".encode("gb18030"))
    with pytest.raises(UserError, match="not UTF-8"):
        read_split(LCQMC, split_file(path))


def test_bad_rows_are_skipped_and_counted_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "dev.jsonl"
    path.write_text(f"{GOOD}\nnonsense\n{GOOD}\n{{}}\n", encoding="utf-8")
    for _ in range(2):  # the second time from the cache
        found = read_split(LCQMC, split_file(path), skip_bad_rows=True)
        assert (len(found), found.n_skipped) == (2, 2)


@pytest.mark.parametrize("content", ["", "\n\n", "sentence1\tsentence2\tlabel\n"])
def test_an_empty_split_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "dev.tsv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="the dev split has no rows"):
        read_split(LCQMC, split_file(path))


def test_half_a_surrogate_pair_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "dev.jsonl"
    path.write_text(GOOD + "\n" + GOOD.replace("猫", "\\ud83d", 1) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r":2: 'sentence1' contains half a surrogate pair"):
        read_split(LCQMC, split_file(path))
    assert len(read_split(LCQMC, split_file(path), skip_bad_rows=True)) == 1


def test_a_damaged_cache_file_is_made_again(tmp_path: Path) -> None:
    from cpm_tune.common.paths import cache_dir

    path = write_jsonl(tmp_path / "dev.jsonl", rows(23))
    before = set(cache_dir("data").glob("*.arrow"))
    assert len(texts(path)) == 23
    (stored,) = set(cache_dir("data").glob("*.arrow")) - before
    stored.write_bytes(stored.read_bytes()[:100])
    assert len(texts(path)) == 23


def test_the_limit_takes_the_first_rows(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "dev.jsonl", rows(6))
    assert [r["id"] for r in read_split(LCQMC, split_file(path), limit=2).rows] == ["0", "1"]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "dev.jsonl", rows(4))
    assert len(texts(path)) == 4
    write_jsonl(path, rows(5))
    assert len(texts(path)) == 5


def test_missing_and_ambiguous_splits_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        find_splits(LCQMC, tmp_path / "absent")
    write_jsonl(tmp_path / "dev.jsonl", rows(2))
    with pytest.raises(UserError, match="no file for train"):
        find_splits(LCQMC, tmp_path)
    write_jsonl(tmp_path / "valid.jsonl", rows(2))
    with pytest.raises(UserError, match=r"dev.jsonl and valid.jsonl could both be the dev split"):
        find_splits(LCQMC, tmp_path, ("dev",))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=200), ending=st.sampled_from(["jsonl", "tsv", "csv"]))
def test_whatever_a_file_holds_it_gives_rows_or_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, ending: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / f"dev.{ending}"
    path.write_bytes(content)
    bad: list[str] = []
    try:
        found = list(checked_rows(LCQMC, SplitFile("dev", (path,), ""), bad))
    except UserError as error:  # the file as a whole cannot be read
        found, bad = [], [str(error)]
    assert all(row["target"] in (0, 1) for row in found)
    assert all(str(path) in message for message in bad)


_FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(pairs=st.lists(st.tuples(_FIELD, _FIELD, st.integers(0, 1)), min_size=1, max_size=5))
def test_any_text_survives_jsonl_and_csv(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("round")
    lines = [{"sentence1": a, "sentence2": b, "label": y} for a, b, y in pairs]
    jsonl = write_jsonl(folder / "dev.jsonl", lines)  # type: ignore[arg-type]
    with (folder / "dev.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence1", "sentence2", "label"])
        writer.writerows(pairs)
    for path in (jsonl, folder / "dev.csv"):
        found = checked_rows(LCQMC, SplitFile("dev", (path,), ""))
        assert [(r["sentence1"], r["sentence2"], r["target"]) for r in found] == pairs


@pytest.mark.skipif(not (REAL_DATA / "lcqmc").is_dir(), reason="the real LCQMC is not here")
def test_the_real_dev_split_reads_the_same_from_both_layouts() -> None:
    jsonl, tsv = (texts(REAL_DATA / "lcqmc" / f"dev.{e}") for e in ("jsonl", "tsv"))
    assert len(jsonl) == 8802
    assert jsonl == tsv
