"""A few of fuzz_readers.py's damaged files; `python tests/fuzz_readers.py --n 20000` reads many."""

from __future__ import annotations

from pathlib import Path

import fuzz_readers
import pytest

from cpm_tune.data.splits import SplitFile
from cpm_tune.data.store import read_split
from cpm_tune.errors import UserError
from cpm_tune.task.registry import load_task


@pytest.mark.parametrize("block", range(4))
def test_damaged_files_give_rows_or_one_sentence(tmp_path: Path, block: int) -> None:
    for turn in range(40):
        assert list(fuzz_readers.check(f"few {block} {turn}", tmp_path)) == []


def test_the_fuzz_finds_what_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bool:
        raise RuntimeError("broken")

    monkeypatch.setattr("cpm_tune.data.files.answers_withheld", broken)
    found = [what for turn in range(20) for _, what in fuzz_readers.check(f"b {turn}", tmp_path)]
    assert any(what.startswith("RuntimeError at test_fuzz_readers.py") for what in found)


@pytest.mark.parametrize("where", ["in an item", "at the start"])
def test_deep_nesting_in_an_array_is_told_at_once(tmp_path: Path, where: str) -> None:
    """Millions of brackets: prefixes of what is open would take minutes."""
    row = '{"sentence1": "一", "sentence2": "二", "label": 1}'
    deep = "[" * 3_000_000
    path = tmp_path / "dev.json"
    path.write_text(f"[{row}, {deep}" if where == "in an item" else deep, encoding="utf-8")
    with pytest.raises(UserError, match=r"item [01] \(nested more than 200 levels deep\)"):
        read_split(load_task("lcqmc"), SplitFile("dev", (path,), f"deep {where}"))


def test_a_value_of_several_lines_is_told_on_one(tmp_path: Path) -> None:
    record = '{"head": "甲", "tail": "乙", "text": "甲买乙", "label_desc": "a\\nb"}'
    path = tmp_path / "dev.jsonl"
    path.write_text(record, encoding="utf-8")
    with pytest.raises(UserError, match=r"dev\.jsonl:1: 'a\\nb' is not one of the 44 relations"):
        read_split(load_task("finre"), SplitFile("dev", (path,), "lines"))
