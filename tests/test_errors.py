"""Errors of a run, and the difference of two, against scikit-learn and hand-made predictions."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from conftest import CLI
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, confusion_matrix, precision_recall_fscore_support

from cpm_tune.analysis.errors import (
    Answered,
    calibrate,
    confusion,
    diff,
    find_errors,
    margin,
    per_label,
)
from cpm_tune.metrics import get_metric
from cpm_tune.planning.plan import Request
from cpm_tune.runs.session import tune
from cpm_tune.task.registry import load_task

LABELS = st.sampled_from(["甲", "乙", "丙"])


@pytest.mark.filterwarnings("ignore:A single label")
@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=60))
def test_confusion_and_labels_equal_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    right, predicted = zip(*pairs, strict=True)
    labels, matrix = confusion(pairs)
    names = sorted({*right})
    assert list(labels) == names
    everything = sorted({*right, *predicted})
    oracle = confusion_matrix(right, predicted, labels=everything)
    columns = [everything.index(name) for name in names]
    for row, name in zip(matrix, names, strict=True):
        counts = oracle[everything.index(name)]
        assert list(row[:-1]) == [counts[c] for c in columns]
        assert sum(row) == sum(counts)
    expected = precision_recall_fscore_support(
        right, predicted, labels=everything, zero_division=0.0
    )
    got = per_label(pairs)
    assert [one.label for one in got] == everything
    for one, *values in zip(got, *expected, strict=True):
        assert (one.precision, one.recall, one.f1, one.n) == pytest.approx(values)


def test_what_is_no_label_is_counted_apart() -> None:
    labels, matrix = confusion([("a", "a"), ("a", None), ("b", "x")])
    assert (labels, matrix) == (("a", "b"), ((1, 0, 1), (0, 0, 1)))


SCORES = st.lists(st.floats(-8, 8), min_size=3, max_size=3)


@given(st.lists(st.tuples(SCORES, st.integers(0, 2)), min_size=1, max_size=40))
def test_brier_and_calibration_error_equal_other_computations(
    scored: list[tuple[list[float], int]],
) -> None:
    got = calibrate(scored)
    logits = np.array([scores for scores, _ in scored])
    powers = np.exp(logits)
    each = powers / powers.sum(axis=1, keepdims=True)
    right = np.array([number for _, number in scored])
    brier = brier_score_loss(right, each, labels=[0, 1, 2], scale_by_half=False)
    assert got.brier == pytest.approx(brier, abs=1e-9)
    best, hit = each.max(axis=1), each.argmax(axis=1) == right
    edges = np.linspace(0, 1, 11)
    ece = 0.0
    for low, high in pairwise(edges):
        inside = (best >= low) & ((best < high) | (high == 1.0))
        if inside.any():
            ece += inside.mean() * abs(best[inside].mean() - hit[inside].mean())
    assert got.ece == pytest.approx(ece, abs=0.02 if near_an_edge(best) else 1e-9)
    assert sum(each_bin.n for each_bin in got.bins) == got.n == len(scored)


def near_an_edge(values: Any) -> bool:
    """Whether rounding decides the bin of a value."""
    return bool((abs(values * 10 - np.rint(values * 10)) < 1e-9).any())


def test_calibration_by_hand() -> None:
    even = math.log(3)
    got = calibrate([((even, 0.0), 0), ((even, 0.0), 1), ((0.0, even), 1), ((0.0, even), 1)])
    assert [(b.low, b.n, b.accuracy) for b in got.bins] == [(0.7, 4, 0.75)]
    assert got.ece == pytest.approx(0.0)
    assert got.brier == pytest.approx((3 * 2 * 0.25**2 + 2 * 0.75**2) / 4)


def answered(predictions: Sequence[int], targets: Sequence[int]) -> list[Answered]:
    return [
        Answered(str(n), p, t, (0.5 * n, 0.0) if p == 0 else (0.0, 0.5 * n))
        for n, (p, t) in enumerate(zip(predictions, targets, strict=True))
    ]


def test_wrong_examples_are_listed_by_margin() -> None:
    answers = answered([0, 1, 0, 1, 1], [1, 1, 1, 0, 1])
    errors = find_errors(load_task("lcqmc"), "accuracy", answers)
    assert errors.surest == (3, 2, 0)
    assert [margin(answers[i], answers[i].target) for i in errors.surest] == [1.5, 1.0, 0.0]


def test_scores_by_length_cover_every_row() -> None:
    task = load_task("lcqmc")
    drawn = planted.random.Random(4)
    rows = [
        {"sentence1": "长" * drawn.randint(1, 30), "sentence2": "短", "target": n % 2, "id": str(n)}
        for n in range(200)
    ]
    answers = answered(
        [int(len(row["sentence1"]) > 15) for row in rows], [n % 2 for n in range(200)]
    )
    buckets = find_errors(task, "accuracy", answers, rows).buckets
    assert sum(score.n for score in buckets.values()) == 200
    assert len(buckets) == 4
    for name, score in buckets.items():
        low, high = map(int, name.split(" to "))
        some = [
            a for a, r in zip(answers, rows, strict=True) if low <= len(r["sentence1"]) + 1 <= high
        ]
        assert score.value == sum(a.prediction == a.target for a in some) / len(some)


def test_the_difference_of_two_runs_on_hand_made_predictions() -> None:
    right = get_metric("accuracy").right
    assert right is not None
    kinds = diff(right, answered([1, 1, 0, 0], [1, 1, 1, 1]), answered([1, 0, 1, 0], [1, 1, 1, 1]))
    assert kinds == {
        "both right": [0],
        "only the first right": [1],
        "only the second right": [2],
        "both wrong": [3],
    }


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    out = tmp_path_factory.mktemp("runs")
    quick = {"train.max_steps": 2, "train.eval_every": 2}
    folders = []
    for seed in (1, 2):
        request = Request("lcqmc", "bitfit", settings=quick, limit=80, seed=seed)
        outcome = tune(request, out=out, controls=())
        assert outcome is not None
        folders.append(outcome.folder)
    return folders[0], folders[1]


def test_the_commands_print_and_write(
    two_runs: tuple[Path, Path], cli: CLI, tmp_path: Path
) -> None:
    a, b = map(str, two_runs)
    code, out, _ = cli("errors", a, "--examples", "3")
    assert code == 0
    for title in ("Confusion", "Labels", "Calibration: ECE", "Scores by characters", "Wrong"):
        assert title in out
    page = tmp_path / "errors.html"
    assert cli("errors", a, "--out", str(page))[0] == 0
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    file = tmp_path / "diff.jsonl"
    assert cli("diff", a, b, "--out", str(file))[0] == 0
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 80
    for line in lines:
        hits = line["first"] == line["target"], line["second"] == line["target"]
        kinds = {(1, 1): "both right", (1, 0): "only the first right"}
        kinds |= {(0, 1): "only the second right", (0, 0): "both wrong"}
        assert line["kind"] == kinds[hits]
        assert " | " in line["text"]
    code, out, _ = cli("diff", a, a)
    assert (code, "only the first right   0     0.0%" in out) == (0, True)


def test_a_run_whose_data_is_gone_is_shown_without_texts(cli: CLI, tmp_path: Path) -> None:
    data = planted.write(planted.clean, tmp_path / "data")
    settings = {"train.max_steps": 1, "train.eval_every": 1}
    request = Request("lcqmc", "bitfit", settings=settings, limit=20, data=data)
    outcome = tune(request, out=tmp_path / "out", controls=())
    assert outcome is not None
    run = str(outcome.folder)
    moved = data.rename(tmp_path / "moved")
    code, out, _ = cli("errors", run)
    assert (code, "without texts and lengths" in out, "Confusion" in out) == (0, True, True)
    _, out, _ = cli("errors", run, "--data", str(moved))
    assert "Scores by characters of the texts" in out
    code, _, error = cli("errors", run, "--data", "tests")
    assert (code, "is not in --data" in error) == (2, True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("errors", "tests"), "tests: not a run's folder (run.json is missing)."),
        (("errors", "RUN", "--data", "absent"), "is not in --data absent"),
        (("errors", "RUN", "--data", "tasks/sample/ccpm"), "its sha256 differs"),
        (("errors", "RUN", "--out", "e.pdf"), "expected an ending of .html"),
        (("diff", "RUN", "RUN", "--out", "e.pdf"), "expected an ending of .html"),
        (("diff", "RUN", "RUN", "--metric", "rouge_l_char_f"), "does not judge single examples"),
    ],
)
def test_mistakes_are_one_sentence(
    words: tuple[str, ...], sentence: str, two_runs: tuple[Path, Path], cli: CLI
) -> None:
    code, _, error = cli(*(str(two_runs[0]) if word == "RUN" else word for word in words))
    assert (code, sentence in error) == (2, True)
