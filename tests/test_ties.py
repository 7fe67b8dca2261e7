"""Places that tests do not exclude, and power."""

from __future__ import annotations

import csv
import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
from conftest import CLI
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from cpm_tune.data.splits import find_splits, sample_folder
from cpm_tune.data.store import read_split
from cpm_tune.leaderboard.board import Places
from cpm_tune.leaderboard.hierarchy import Hierarchy
from cpm_tune.leaderboard.indices import (
    BASELINE,
    NORMALISED_MEAN,
    RATIO_OF_SUMS,
    normalised_mean,
    ratio_of_sums,
    weights_of,
)
from cpm_tune.leaderboard.mean_places import verdicts
from cpm_tune.leaderboard.power import detectable, needed, standard_error
from cpm_tune.leaderboard.published import baseline, read_published
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
    for style, bold in (("md", "**"), ("latex", r"\textbf")):
        tested = cli("leaderboard", str(results), "--places", "--format", style)[1]
        marked = [line for line in tested.splitlines() if bold in line]
        assert ["(1-2 of 4)" in line for line in marked] == [True, True], (
            "no best of two equal ones"
        )
        plain = cli("leaderboard", str(results), "--format", style)[1]
        assert len([line for line in plain.splitlines() if bold in line]) == 1
        assert "the best of a column, without a test" in plain
    table = cli("leaderboard", str(results), "--places", "--format", "csv")[1].splitlines()
    of = {line["row"].split(" ")[0]: line for line in csv.DictReader(table)}
    assert [of[name]["place_last"] for name in "ABCD"] == ["2", "2", "3", "4"]
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


SHARES = {"A": (0.95, 0.9), "B": (0.93, 0.9), "C": (0.8, 0.7), "D": (0.8, 0.7)}


@pytest.fixture
def two_datasets(tmp_path: Path, cli: CLI) -> tuple[Path, dict[str, list[np.ndarray]]]:
    """Systems on ccpm and lcqmc, D equal to C, and what each has right."""
    out, right = tmp_path / "results", {name: list[np.ndarray]() for name in SHARES}
    for number, task_name in enumerate(("ccpm", "lcqmc")):
        task = load_task(task_name)
        file = find_splits(task, sample_folder(task), ("test",))["test"]
        rows, drawn = list(read_split(task, file).rows), np.random.default_rng(number)
        hard = drawn.random(len(rows))
        for name, shares in SHARES.items():
            noise = drawn.random(len(rows)) if name == "B" else hard
            right[name].append(0.5 * (hard + noise) < shares[number])
            lines = [
                {"id": row["id"], "prediction": row["target"] if ok else 1 - row["target"]}
                if task_name == "lcqmc"
                else {"id": row["id"], "prediction": (row["target"] + (not ok)) % 4}
                for row, ok in zip(rows, right[name][-1].tolist(), strict=True)
            ]
            predictions = tmp_path / f"{task_name}.{name}.jsonl"
            predictions.write_text("".join(json.dumps(line) + "\n" for line in lines))
            words = ("score", "--task", task_name, "--predictions", predictions, "--name", name)
            assert cli(*words, "--out", out)[0] == 0
    return out, right


def test_places_of_a_mean_equal_those_of_its_variance(
    two_datasets: tuple[Path, dict[str, list[np.ndarray]]], cli: CLI
) -> None:
    """Without resampling: the variance of a mean of two accuracies, each over its own rows."""
    out, right = two_datasets
    board = json.loads(cli("leaderboard", out, "--places", "--format", "json")[1])
    rows = {row["backbone"]: row["indices"]["mean"] for row in board["rows"]}
    pairs, names = [], list(SHARES)
    for a, b in itertools.combinations(range(len(names)), 2):
        differences = [
            x.astype(float) - y for x, y in zip(right[names[a]], right[names[b]], strict=True)
        ]
        mean = np.mean([d.mean() for d in differences])
        error = np.sqrt(sum(d.var() / len(d) for d in differences)) / 2
        pairs.append((a, b, mean, 2 * norm.sf(abs(mean) / error) if error else 1.0))
    significant = multipletests([p for *_, p in pairs], method="holm")[0]
    for i, name in enumerate(names):
        value = 100 * np.mean([each.mean() for each in right[name]])
        assert rows[name]["value"] == pytest.approx(value)
        better = worse = 0
        for (a, b, mean, _), differs in zip(pairs, significant, strict=True):
            if differs and i in (a, b):
                lost = (mean > 0) == (i == b)
                better, worse = better + lost, worse + (not lost)
        place = {"first": 1 + better, "last": len(names) - worse, "of": len(names)}
        assert rows[name]["places"] == place
    assert rows["A"]["places"] != rows["C"]["places"]  # something is significant, and not all
    assert rows["C"]["places"]["last"] - rows["C"]["places"]["first"] == 1
    text = cli("leaderboard", out, "--places")[1]
    assert "Means over datasets:" in text
    assert text == cli("leaderboard", out, "--places")[1]
    assert "Means over datasets:" not in cli("leaderboard", out)[1]
    assert "3-4 of 4" in cli("leaderboard", out, "--places", "--format", "md")[1]


def test_the_covariance_is_that_of_the_scores() -> None:
    values, covariance = np.array([1.0, 0.0, 0.0]), np.zeros((3, 3))
    assert verdicts(values, covariance) == {(0, 1): "win", (0, 2): "win", (1, 2): "tie"}
    covariance[:] = 4.0  # all vary alike: differences do not vary at all
    assert verdicts(values, covariance)[0, 1] == "win"
    assert set(verdicts(values, 4 * np.eye(3)).values()) == {"tie"}


@pytest.mark.parametrize("name", [NORMALISED_MEAN, RATIO_OF_SUMS])
def test_an_index_is_the_sum_of_its_weighted_scores(name: str) -> None:
    base = {task: printed.value for task, printed in baseline(read_published(), BASELINE).items()}
    places = {task: Hierarchy().dataset(task) for task in base}
    drawn = np.random.default_rng(1)
    known = {task: float(drawn.uniform(10, 90)) for task in base}
    weights = weights_of(name, places)
    expected = {
        NORMALISED_MEAN: normalised_mean(known, base, places),
        RATIO_OF_SUMS: ratio_of_sums(known, base),
    }[name]
    assert sum(weights[task][1] * known[task] for task in base) == pytest.approx(expected)
