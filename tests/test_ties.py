"""Places that tests do not exclude, and power."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
from conftest import CLI
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.power import TTestPower

from cpm_tune.data.splits import find_splits, sample_folder
from cpm_tune.data.store import read_split
from cpm_tune.leaderboard.board import Places
from cpm_tune.leaderboard.power import detectable, needed, standard_error
from cpm_tune.leaderboard.statistics import compare
from cpm_tune.leaderboard.ties import places
from cpm_tune.metrics import get_metric
from cpm_tune.task.registry import load_task


def test_places_by_hand() -> None:
    """A beats C and D, B beats D, nothing else is significant."""
    verdicts = dict.fromkeys(itertools.combinations(range(4), 2), "tie")
    verdicts |= {(0, 2): "win", (0, 3): "win", (1, 3): "win"}
    assert [str(place) for place in places(4, verdicts)] == [
        "1-2 of 4",
        "1-3 of 4",
        "2-4 of 4",
        "3-4 of 4",
    ]
    swapped = {(0, 1): "loss"}
    assert places(2, swapped) == [Places(first=2, last=2, of=2), Places(first=1, last=1, of=2)]


@given(st.integers(1, 6), st.data())
def test_places_contain_every_order_that_no_test_contradicts(n: int, data: st.DataObject) -> None:
    true = data.draw(st.permutations(range(n)))  # row i is at place true[i]
    verdicts = {
        (a, b): data.draw(st.sampled_from(["tie", "win" if true[a] < true[b] else "loss"]))
        for a, b in itertools.combinations(range(n), 2)
    }
    for place, row in zip(places(n, verdicts), true, strict=True):
        assert place.first <= row + 1 <= place.last
        assert place.of == n


@pytest.fixture
def results(tmp_path: Path, cli: CLI) -> Path:
    """Systems on ccpm: two nearly equal ones, a clearly worse one, and chance."""
    task = load_task("ccpm")
    file = find_splits(task, sample_folder(task), ("test",))["test"]
    rows = list(read_split(task, file).rows)
    out, drawn = tmp_path / "results", random.Random(1)
    hard = [drawn.random() for _ in rows]
    for name, share in (("A", 0.9), ("B", 0.89), ("C", 0.6), ("D", 0.25)):
        lines = []
        for row, hardness in zip(rows, hard, strict=True):
            answer = row["target"] if hardness < share else (row["target"] + 1) % 4
            lines.append(json.dumps({"id": row["id"], "prediction": answer}) + "\n")
        predictions = tmp_path / f"{name}.jsonl"
        predictions.write_text("".join(lines))
        words = ("score", "--task", "ccpm", "--predictions", str(predictions), "--name", name)
        assert cli(*words, "--out", str(out))[0] == 0
    return out


def test_the_board_prints_places_on_request(results: Path, cli: CLI, tmp_path: Path) -> None:
    _, out, _ = cli("leaderboard", str(results), "--places")
    lines = {line.split()[0]: line for line in out.splitlines() if " of 4" in line}
    assert {name: line.split("  ")[-1].strip() for name, line in lines.items()} == {
        "A": "1-2 of 4",
        "B": "1-2 of 4",
        "C": "3 of 4",
        "D": "4 of 4",
    }
    assert " of 4" not in cli("leaderboard", str(results))[1]
    page = tmp_path / "board.html"
    assert cli("leaderboard", str(results), "--places", "--out", str(page))[0] == 0
    assert '"places":{"first":1,"last":2,"of":4}' in page.read_text(encoding="utf-8")


def test_a_run_whose_predictions_were_changed_has_no_place(results: Path, cli: CLI) -> None:
    file = next(results.glob("*/predictions.test.jsonl"))
    file.write_text(file.read_text().replace('"prediction": 0', '"prediction": 1'))
    code, out, error = cli("leaderboard", str(results), "--places")
    assert (code, " of 4" in out) == (0, False)
    assert "no places" in error


def test_power_equals_that_of_the_t_test_and_of_a_simulation(cli: CLI) -> None:
    generator = np.random.default_rng(1)
    n, metric = 400, get_metric("accuracy")
    targets = [1] * n
    a = (generator.random(n) < 0.75).astype(int).tolist()
    b = (generator.random(n) < 0.70).astype(int).tolist()
    error = standard_error(compare(metric, [a], [b], targets))
    assert error is not None
    spread = np.std(np.array(a) - np.array(b), ddof=1)
    assert error == pytest.approx(spread / n**0.5, rel=0.05)
    for difference in (0.03, 0.1):
        rows = TTestPower().solve_power(difference / spread, alpha=0.05, power=0.8)
        assert needed(error, n, difference) == pytest.approx(rows, rel=0.12)
    least = detectable(error)
    assert needed(error, n, least) in (n, n + 1)
    drawn = generator.normal(least, error, 20_000)  # differences that other rows would show
    assert np.mean(abs(drawn) > 1.96 * error) == pytest.approx(0.8, abs=0.02)


def test_compare_prints_power(results: Path, cli: CLI) -> None:
    words = ("leaderboard", "compare", "A", "B", "--results", str(results))
    _, out, _ = cli(*words, "--difference", "0.01")
    (line,) = (line for line in out.splitlines() if line.startswith("power: ccpm, A - B: 200 rows"))
    assert "with a probability of 80%, and about" in line
    assert line.endswith("rows one of 0.01")
    code, _, error = cli(*words, "--difference", "0")
    assert (code, "above 0" in error) == (2, True)
