"""The order of training examples, and the learning rate of every step."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from cpm_tune.data import mapped
from cpm_tune.data.batches import global_batches, total_steps
from cpm_tune.data.store import RowDataset
from cpm_tune.schema.lr_schedule import SCHEDULES
from cpm_tune.schema.spec import Recipe

SIZES = {"n_rows": st.integers(1, 50), "size": st.integers(1, 60), "epochs": st.integers(1, 4)}
WARM_UPS = [1, 7, 50]


# --- the order ---


@settings(deadline=None)
@given(**SIZES, seed=st.integers(0, 2**32))
def test_every_epoch_takes_every_row_once_and_only_its_last_batch_is_smaller(
    n_rows: int, size: int, epochs: int, seed: int
) -> None:
    batches = list(global_batches(n_rows, Recipe(batch_size=size, epochs=epochs), seed))
    assert [batch.step for batch in batches] == list(range(1, len(batches) + 1))
    assert sorted({batch.epoch for batch in batches}) == list(range(epochs))
    assert [batch.epoch for batch in batches] == sorted(batch.epoch for batch in batches)
    for epoch in range(epochs):
        taken = [batch.rows for batch in batches if batch.epoch == epoch]
        assert sorted(row for rows in taken for row in rows) == list(range(n_rows))
        assert all(len(rows) == size for rows in taken[:-1])
        assert len(taken[-1]) == (n_rows % size or size)


@settings(deadline=None)
@given(**SIZES, most=st.one_of(st.none(), st.integers(1, 80)))
def test_the_number_of_steps_is_known_beforehand_and_max_steps_ends_it_early(
    n_rows: int, size: int, epochs: int, most: int | None
) -> None:
    recipe = Recipe(batch_size=size, epochs=epochs, max_steps=most)
    whole = list(global_batches(n_rows, recipe.model_copy(update={"max_steps": None}), 1))
    expected = whole if most is None else whole[:most]
    assert list(global_batches(n_rows, recipe, 1)) == expected
    assert total_steps(n_rows, recipe) == len(expected)


def test_the_order_repeats_for_a_seed_and_differs_between_seeds_and_epochs() -> None:
    recipe = Recipe(batch_size=8, epochs=3)

    def orders(seed: int) -> list[tuple[int, ...]]:
        epochs: list[tuple[int, ...]] = [()] * 3
        for batch in global_batches(40, recipe, seed):
            epochs[batch.epoch] += batch.rows
        return epochs

    drawn = [order for seed in (0, 1, 2) for order in orders(seed)]
    assert drawn == [order for seed in (0, 1, 2) for order in orders(seed)]
    assert len({*drawn, tuple(range(40))}) == len(drawn) + 1  # all different, none the file's order


def test_an_epochs_order_does_not_depend_on_batch_size_or_number_of_epochs() -> None:
    small = [row for b in global_batches(30, Recipe(batch_size=4, epochs=1), 5) for row in b.rows]
    large = [row for b in global_batches(30, Recipe(batch_size=9, epochs=2), 5) for row in b.rows]
    assert large[:30] == small


def test_rows_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    rows = [{"id": str(i), "text": [f"第{i}行", None], "target": i % 3} for i in range(18)]
    Dataset.from_list(rows).save_to_disk(tmp_path / "rows")
    whole = RowDataset(Dataset.load_from_disk(tmp_path / "rows"), ())
    for dataset, expected in (
        (whole, rows),
        (whole.first(5), rows[:5]),
        (whole.first(None), rows),
        (whole.share(1, 4), rows[1::4]),
        (whole.first(11).share(2, 3), rows[2:11:3]),
        (whole.select((9, 0, 17)), [rows[9], rows[0], rows[17]]),
        (whole.select((9, 0, 17)).share(0, 2), [rows[9], rows[17]]),
        (whole.share(1, 2).select((3, 1)).first(1), [rows[7]]),
    ):
        assert list(dataset) == expected
        assert len(dataset) == len(expected)
        assert dataset.targets() == [row["target"] for row in expected]
    assert whole.at((4, 0, 15, 4)) == [rows[4], rows[0], rows[15], rows[4]]
    with pytest.raises(IndexError):
        whole.at([18])


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux counts pages by file")
def test_pages_that_were_read_are_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "LEAST", 2**16)
    monkeypatch.setattr(mapped, "EVERY", 60)
    rows = [{"text": f"{i}" * 5_000, "target": i} for i in range(10, 99)]
    Dataset.from_list(rows).save_to_disk(tmp_path / "rows")
    dataset = RowDataset(Dataset.load_from_disk(tmp_path / "rows"), ())

    def resident() -> int:
        """KiB of the rows' file in this process's memory."""
        lines = Path("/proc/self/smaps").read_text(errors="replace").splitlines()
        of = ""
        total = 0
        for line in lines:
            if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
                of = line
            elif line.startswith("Rss:") and str(tmp_path.resolve()) in of:
                total += int(line.split()[1])
        return total

    assert dataset.at(range(50)) == rows[:50]
    assert resident() > 100
    assert dataset.at(range(50, 89)) == rows[50:]
    assert resident() == 0
    assert dataset.at([3]) == [rows[3]], "what was given back can be read again"


# --- the learning rate ---


def rates(schedule: str, warmup: int, total: int, lr: float = 0.02) -> list[float]:
    recipe = Recipe(schedule=schedule, warmup=warmup, lr=lr)  # type: ignore[arg-type]
    return [recipe.learning_rate(step, total) for step in range(1, total + 1)]


@pytest.mark.parametrize("warmup", WARM_UPS)
def test_noam_rises_to_lr_over_the_root_of_the_warm_up_and_then_falls_as_the_root_of_the_step(
    warmup: int,
) -> None:
    noam = rates("noam", warmup, 400)
    peak = 0.02 / math.sqrt(warmup)
    assert max(noam) == pytest.approx(peak)
    assert noam.index(max(noam)) == warmup - 1
    for step, rate in enumerate(noam, start=1):
        rising, falling = peak * step / warmup, 0.02 / math.sqrt(step)
        assert rate == pytest.approx(rising if step <= warmup else falling)


@pytest.mark.parametrize("warmup", WARM_UPS)
@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_other_schedules_rise_in_equal_steps_to_lr(schedule: str, warmup: int) -> None:
    expected = [0.02 * step / warmup for step in range(1, warmup + 1)]
    assert rates(schedule, warmup, 400)[:warmup] == pytest.approx(expected)


@pytest.mark.parametrize("warmup", WARM_UPS)
def test_after_the_warm_up_constant_stays_linear_falls_evenly_and_cosine_as_half_a_wave(
    warmup: int,
) -> None:
    total = 400
    assert rates("constant", warmup, total)[warmup:] == [0.02] * (total - warmup)
    linear = rates("linear", warmup, total)[warmup - 1 :]
    falls = [a - b for a, b in pairwise(linear)]
    assert falls == pytest.approx([0.02 / (total - warmup)] * (total - warmup))
    assert linear[-1] == pytest.approx(0, abs=1e-12)
    cosine = rates("cosine", warmup, total)[warmup:]
    quarter = math.pi / 2 / (total - warmup)
    assert cosine == pytest.approx(
        [0.02 * math.cos(quarter * n) ** 2 for n in range(1, total - warmup + 1)], abs=1e-12
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_is_proportional_to_lr(schedule: str) -> None:
    single, double = (rates(schedule, 7, 40, lr) for lr in (0.01, 0.02))
    assert double == pytest.approx([2 * rate for rate in single])


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("total", [1, 49, 50, 51])
def test_a_training_no_longer_than_its_warm_up_only_warms_up(schedule: str, total: int) -> None:
    expected = [0.02 * step / 50 for step in range(1, min(total, 50) + 1)]
    assert rates(schedule, 50, total)[:50] == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_step_past_the_end_has_rate_zero_not_a_negative_one(schedule: str) -> None:
    recipe = Recipe(schedule=schedule, warmup=5)  # type: ignore[arg-type]
    assert [recipe.learning_rate(step, 20) for step in (21, 30, 40)] == [0, 0, 0]
