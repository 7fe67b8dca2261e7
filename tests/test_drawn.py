"""train.rows: a part of train by the seed, nested, in the labels' proportions."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from conftest import CLI, write_jsonl
from hypothesis import given
from hypothesis import strategies as st

from cpm_tune.data.drawn import drawn, order
from cpm_tune.data.splits import find_splits
from cpm_tune.data.store import Split, read_split
from cpm_tune.errors import UserError
from cpm_tune.schema.record import read_record
from cpm_tune.schema.spec import Recipe
from cpm_tune.task.registry import load_task


@given(st.lists(st.integers(0, 3), min_size=1, max_size=80), st.integers(0, 5))
def test_every_beginning_has_the_labels_in_proportion(labels: list[int], seed: int) -> None:
    numbers, counts = order(labels, seed), Counter(labels)
    assert sorted(numbers) == list(range(len(labels)))
    for n in range(1, len(labels) + 1):
        part = Counter(labels[number] for number in numbers[:n])
        for label, count in counts.items():
            assert abs(part[label] - n * count / len(labels)) <= len(counts), (n, label)
            if len(counts) == 2:
                assert abs(part[label] - n * count / len(labels)) <= 1, (n, label)


def test_rare_labels_have_their_share() -> None:
    labels = [0] * 950 + list(range(1, 51))
    rare = [sum(labels[number] > 0 for number in order(labels, seed)[:400]) for seed in range(20)]
    assert all(abs(n - 20) <= 16 for n in rare), "four standard deviations of 50 draws"
    assert abs(sum(rare) / 20 - 20) <= 4


def test_the_seed_decides_which_rows() -> None:
    labels = [k % 2 for k in range(200)]
    assert order(labels, 1) == order(labels, 1)
    assert set(order(labels, 1)[:50]) != set(order(labels, 2)[:50])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LCQMC of 40, 12 and 12 rows; a quarter of train has label 1."""
    folder = tmp_path_factory.mktemp("lcqmc")
    for split, n in (("train", 40), ("dev", 12), ("test", 12)):
        texts = [(f"{split}第{k}句", f"第{k}句呢", int(k % 4 == 0)) for k in range(n)]
        names = ("sentence1", "sentence2", "label")
        write_jsonl(
            folder / f"{split}.jsonl", [dict(zip(names, row, strict=True)) for row in texts]
        )
    return folder


def ids(split: Split) -> list[str]:
    return [row["id"] for row in split.rows]


def test_smaller_parts_are_in_larger_ones_and_rows_keep_their_order(data: Path) -> None:
    task = load_task("lcqmc")
    train = read_split(task, find_splits(task, data)["train"])
    whole = ids(train)
    smaller: set[str] = set()
    for n in (4, 8, 20, 40):
        part = drawn(task, train, n, seed=3)
        names = ids(part)
        assert names == [name for name in whole if name in set(names)], "in the file's order"
        assert smaller < set(names)
        assert abs(Counter(part.rows.targets())[1] - n // 4) <= 1
        assert part.rows.origin is not None
        assert [whole[part.rows.origin.place(k)] for k in range(n)] == names
        smaller = set(names)
    halves = [drawn(task, train, 8, seed=3).rows.share(k, 2) for k in (0, 1)]
    for k, half in enumerate(halves):
        assert half.origin is not None
        places = [whole[half.origin.place(i)] for i in range(4)]
        assert places == [row["id"] for row in half] == ids(drawn(task, train, 8, seed=3))[k::2]
    assert drawn(task, train, None, seed=3) is train
    with pytest.raises(UserError, match=r"train\.rows is 41, but the train split has 40 rows"):
        drawn(task, train, 41, seed=3)


def test_a_run_on_a_part_of_train(data: Path, cli: CLI, tmp_path: Path) -> None:
    common = ("--task", "lcqmc", "--delta", "bitfit", "--data", data, "--out", tmp_path)
    short = ("--set", "train.max_steps=2", "--set", "train.batch_size=4", "--control", "none")
    for rows in (None, 40, 8):
        given = () if rows is None else ("--set", f"train.rows={rows}")
        code, _, error = cli(*common, *short, *given)
        assert code == 0, error
    records = {
        record.spec.recipe.rows: (record, path.parent)
        for path in tmp_path.glob("*/run.json")
        if (record := read_record(path)).spec.recipe is not None
    }
    whole, all_of_them, part = (records[rows][0] for rows in (None, 40, 8))
    assert len({r.run_id for r in (whole, all_of_them, part)}) == 3
    assert "rows" not in json.loads(whole.spec.model_dump_json())["recipe"]
    assert whole.delta.sha256 == all_of_them.delta.sha256 != part.delta.sha256
    assert {name: split.n for name, split in part.data.items()} == {
        "train": 8,
        "dev": 12,
        "test": 12,
    }
    assert part.data["test"].sha256 == whole.data["test"].sha256
    assert part.spec.data == whole.spec.data


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("train.rows=41", "train.rows is 41, but the train split has 40 rows"),
        ("train.rows=0", "train.rows is 0, expected"),
        ("train.rows=x", "train.rows is 'x', expected"),
        ("train.rows=true", "train.rows is true, expected"),
    ],
)
def test_rows_that_cannot_be_drawn(
    data: Path, cli: CLI, tmp_path: Path, setting: str, sentence: str
) -> None:
    out = tmp_path / "out"
    given = ("--task", "lcqmc", "--delta", "bitfit", "--data", data, "--out", out)
    code, _, error = cli(*given, "--set", setting)
    assert (code, out.exists()) == (2, False)
    assert sentence in error


def test_rows_and_a_share_of_them_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="keep one of the two"):
        Recipe(rows=10, rows_share=0.5)


def test_shots_come_from_the_rows_in_use(data: Path, cli: CLI, tmp_path: Path) -> None:
    given = ("--task", "lcqmc", "--delta", "bitfit", "--data", data, "--out", tmp_path)
    code, _, error = cli(*given, "--shots", 4, "--set", "train.rows=4", "--dry-run")
    assert code == 2
    assert "train has 4 different rows, expected more than 4" in error
