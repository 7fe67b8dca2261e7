"""Shortcut controls name the fault that was planted, and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import planted
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_record import record

from cpm_tune.analysis import shortcuts
from cpm_tune.analysis.counts import Counts
from cpm_tune.analysis.shortcuts import shortcut_controls
from cpm_tune.analysis.texts import normalised, units
from cpm_tune.data.splits import data_folder, find_splits
from cpm_tune.data.store import Split, read_split
from cpm_tune.leaderboard.board import Cost
from cpm_tune.leaderboard.columns import column_of
from cpm_tune.leaderboard.hierarchy import Hierarchy
from cpm_tune.leaderboard.means import cell_of, judge
from cpm_tune.planning.plan import Request, make_plan
from cpm_tune.runs import execute
from cpm_tune.runs.examined import examined
from cpm_tune.runs.session import tune
from cpm_tune.schema.record import ControlRecord, RunRecord, read_record
from cpm_tune.task import Task
from cpm_tune.task.registry import load_task


def splits_of(name: str, data: Path | None, limit: int | None = None) -> tuple[Task, Any]:
    """A task and its splits."""
    task = load_task(name)
    files = find_splits(task, data_folder(task, data))
    return task, {split: read_split(task, file, limit) for split, file in files.items()}


def controls_of(name: str, data: Path | None) -> dict[str, ControlRecord]:
    task, splits = splits_of(name, data)
    return shortcut_controls(task, splits["train"], splits["test"])


@pytest.mark.parametrize(
    ("plant", "expected", "least"),
    [
        (planted.clean, set(), 0.0),
        (planted.length, {"length"}, 0.99),
        (planted.shared, set(), 0.0),
        (planted.option_alone, {"option-alone"}, 0.95),
    ],
)
def test_the_planted_shortcut_alone_is_above_chance(
    tmp_path: Path, plant: planted.Plant, expected: set[str], least: float
) -> None:
    name = planted.TASKS[plant]
    controls = controls_of(name, planted.write(plant, tmp_path))
    chance = {"lcqmc": 0.53, "ccpm": 0.28}[name]
    assert {name for name, control in controls.items() if control.low > chance} == expected
    assert all(controls[name].value >= least for name in expected)


def test_which_shortcuts_a_task_can_have() -> None:
    labels = {"length", "bag", "overlap", "nearest"}
    options = {"length", "option-alone", "overlap", "nearest"}
    assert set(controls_of("lcqmc", None)) == labels
    assert set(controls_of("ccpm", None)) == options
    assert set(controls_of("sogou_log", None)) == options
    assert controls_of("math23k", None) == {}


def test_the_overlap_control_is_as_good_as_the_best_threshold() -> None:
    task, splits = splits_of("lcqmc", None)

    def jaccard(row: dict[str, Any]) -> float:
        a, b = {*row["sentence1"]}, {*row["sentence2"]}
        return len(a & b) / len(a | b)

    rows = {name: list(split.rows) for name, split in splits.items()}
    threshold = max(
        {jaccard(row) for row in rows["train"]},
        key=lambda t: sum((jaccard(r) >= t) == r["target"] for r in rows["train"]),
    )
    right = [(jaccard(row) >= threshold) == row["target"] for row in rows["test"]]
    value = shortcut_controls(task, splits["train"], splits["test"])["overlap"].value
    assert value == pytest.approx(sum(right) / len(right), abs=0.03)


def test_the_nearest_row_of_train_gives_its_answer(tmp_path: Path) -> None:
    for split, rows in planted.clean(planted.random.Random(3)):
        kept = rows[:300]
        if split == "train":
            train = kept
        if split == "test":
            kept = [{**row, "sentence1": row["sentence1"] + "啊"} for row in train[::-1]]
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
        (tmp_path / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    assert controls_of("lcqmc", tmp_path)["nearest"].value == 1.0


def test_long_splits_are_sampled_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, splits = splits_of("lcqmc", planted.write(planted.length, tmp_path))
    monkeypatch.setattr(shortcuts, "MOST", 300)
    monkeypatch.setattr(shortcuts, "VERSION", "of this test")
    pair: tuple[Split, Split] = splits["train"], splits["test"]
    length = shortcut_controls(task, *pair)["length"]
    assert length.value > 0.95
    assert length.note.endswith("; 300 rows of train, 300 of test")


def test_they_are_computed_once_per_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = planted.write(planted.clean, tmp_path / "a", seed=7)
    first = controls_of("lcqmc", data)

    def never(*args: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(shortcuts, "_computed", never)
    assert controls_of("lcqmc", data) == first
    with pytest.raises(AssertionError, match="again"):
        controls_of("lcqmc", planted.write(planted.clean, tmp_path / "b", seed=8))


def test_a_train_split_with_one_label_teaches_no_shortcut(tmp_path: Path) -> None:
    planted.write(planted.clean, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    lines = (json.dumps({**row, "label": 1}) + "\n" for row in rows)
    (tmp_path / "train.jsonl").write_text("".join(lines))
    assert controls_of("lcqmc", tmp_path) == {}


QUICK = {"train.max_steps": 2, "train.eval_every": 2}


def test_a_mades_them_and_says_that_they_are_not_beaten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[RunRecord] = []

    def late(record: RunRecord, task: Task, splits: Any, folder: Path) -> RunRecord:
        """The run has been trained and scored when shortcuts begin: they delay nothing of it."""
        assert (folder / "delta.safetensors").is_file()
        assert (folder / "predictions.test.jsonl").is_file()
        looked_at.append(record)
        return examined(record, task, splits, folder)

    monkeypatch.setattr(execute, "examined", late)
    request = Request("lcqmc", "bitfit", settings=QUICK, limit=120)
    outcome = tune(request, out=tmp_path, controls=())
    assert outcome is not None
    assert [record.training is not None for record in looked_at] == [True]
    made = read_record(outcome.folder / "run.json")
    assert {"length", "bag", "overlap", "nearest"} < set(made.controls)
    name, control = made.unbeaten_shortcut or ("", None)
    assert (name, control) == ("overlap", made.controls["overlap"])
    out = capsys.readouterr().out
    assert f"shortcut overlap {control.value:.4f}  a decision tree" in out
    assert "warning    the shortcut overlap gets" in out


def test_without_shortcuts_the_run_is_the_same_run(tmp_path: Path) -> None:
    settings = {**QUICK, "run.shortcuts": False}
    request = Request("lcqmc", "bitfit", settings=settings, limit=120)
    assert (
        make_plan(request).spec
        == make_plan(Request("lcqmc", "bitfit", settings=QUICK, limit=120)).spec
    )
    outcome = tune(request, out=tmp_path, controls=())
    assert outcome is not None
    assert set(outcome.record.controls) == {"majority"}


@pytest.mark.parametrize(
    ("low", "high", "better", "unbeaten"),
    [
        (0.71, 0.8, True, False),
        (0.69, 0.8, True, True),
        (0.6, 0.69, False, False),
        (0.6, 0.71, False, True),
    ],
)
def test_beaten_is_by_more_than_the_interval(
    low: float, high: float, better: bool, unbeaten: bool
) -> None:
    made = record(status="finished")
    score = {"value": (low + high) / 2, "low": low, "high": high, "higher_is_better": better}
    test = made.test.model_copy(update=score)
    shortcut = ControlRecord(value=0.7, low=0.6, high=0.8)
    worse = ControlRecord(value=0.1 if better else 0.9, low=0.0, high=1.0)
    changed = made.model_copy(
        update={
            "scores": {"test": {made.ranks_by: test}},
            "controls": {"majority": worse, "length": worse, "bag": shortcut},
        }
    )
    assert (changed.unbeaten_shortcut == ("bag", shortcut)) is unbeaten
    cell = cell_of([changed], Cost(), ())
    column = column_of("lcqmc", [changed], Hierarchy(()))
    judge(column, [cell])
    assert (cell.not_above == "bag") is unbeaten


@given(*[st.lists(st.lists(st.text("猫狗 ab", max_size=8), max_size=3), max_size=6)] * 2)
def test_terms_are_counted_as_strings_would_be(
    known: list[list[str]], asked: list[list[str]]
) -> None:
    rows = [[[units(text) for text in row] for row in side] for side in (known, asked)]
    counts = Counts(*rows)

    def terms(row: list[list[str]]) -> Counter[tuple[str, ...]]:
        single = Counter[tuple[str, ...]]((unit,) for part in row for unit in part)
        return single + Counter(pair for part in row for pair in pairwise(part))

    there = {term for row in rows[0] for term in terms(row)}
    for matrix, side in zip((counts.known, counts.asked), rows, strict=True):
        assert matrix.shape[0] == len(side)
        for line, row in zip(matrix.toarray().tolist(), side, strict=True):
            expected = sorted(n for term, n in terms(row).items() if term in there)
            assert sorted(n for n in line if n) == expected
    occurs = Counter(term for row in rows[0] for term in terms(row))
    assert sorted(n for n in counts.rows_with_each if n) == sorted(occurs.values())


def test_units_and_normal_form() -> None:
    assert units("iPhone14 好用吗？") == ["iphone14", "好", "用", "吗", "？"]
    assert normalised(" Ｉphone_14，好用吗？") == "iphone14好用吗"
