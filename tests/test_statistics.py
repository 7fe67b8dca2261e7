"""Tests and intervals between two sides, against scipy, statsmodels and plain recomputation."""

from __future__ import annotations

import itertools
import random
import statistics
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU as Theirs  # noqa: N811
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests
from test_metrics import EXAMPLES

from cpm_tune.leaderboard.statistics import compare, holm, mcnemar, verdict
from cpm_tune.metrics import get_metric, metric_names

ACCURACY, ROUGE, BLEU = (get_metric(n) for n in ("accuracy", "rouge_l_char_f", "bleu_2"))
CHARACTERS = "天地玄黄宇宙洪荒"


def labels(n: int, right: float, seed: int) -> list[int]:
    """Predictions for targets of 1, about that share of them right."""
    chance = random.Random(seed)
    return [int(chance.random() < right) for _ in range(n)]


def texts(n: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return ["".join(chance.choices(CHARACTERS, k=chance.randint(3, 9))) for _ in range(n)]


def near(targets: list[str], kept: float, seed: int) -> list[str]:
    """The targets with some characters exchanged."""
    chance = random.Random(seed)
    return [
        "".join(c if chance.random() < kept else chance.choice(CHARACTERS) for c in t)
        for t in targets
    ]


def bleu(predictions: list[str], targets: list[str]) -> float:
    corpus = Theirs(tokenize="char", max_ngram_order=2)
    return corpus.corpus_score(predictions, [targets]).score


# --- the metrics' parts ---


@pytest.mark.parametrize("name", metric_names())
def test_a_metric_on_whole_number_weights_is_the_metric_on_repeated_examples(name: str) -> None:
    metric = get_metric(name)
    chance = random.Random(name)

    @settings(max_examples=8, deadline=None)
    @given(st.lists(EXAMPLES[metric.prediction], min_size=1, max_size=5))
    def check(examples: list[tuple[Any, Any]]) -> None:
        weights = [chance.randint(0, 2) for _ in examples]
        weights[0] += not any(weights)
        repeated = [e for e, w in zip(examples, weights, strict=True) for _ in range(w)]
        expected = metric.score(*zip(*repeated, strict=True)).value
        parts = metric.parts(*zip(*examples, strict=True))
        (value,) = parts.values(np.array([weights], dtype=float))
        assert value == pytest.approx(expected, rel=1e-12, abs=1e-12)
        assert len(parts) == len(examples)

    check()


# --- tests ---


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (5, 12), (24, 0), (12, 12)])
def test_mcnemar_with_few_discordant_pairs_is_the_exact_one(b: int, c: int) -> None:
    p, said = mcnemar(b, c)
    assert said == "McNemar, exact"
    assert p == pytest.approx(their_mcnemar([[3, b], [c, 4]], exact=True).pvalue)


@pytest.mark.parametrize(("b", "c"), [(25, 0), (30, 12), (121, 59), (20, 20)])
def test_mcnemar_with_many_discordant_pairs_is_corrected(b: int, c: int) -> None:
    p, said = mcnemar(b, c)
    assert said == "McNemar, continuity correction"
    theirs = their_mcnemar([[3, b], [c, 4]], exact=False, correction=True)
    assert p == pytest.approx(theirs.pvalue)


def test_mcnemar_of_a_published_table() -> None:
    """Agresti, Categorical Data Analysis (1990): approval of a prime minister, 86 and 150 changed
    their minds; without correction the statistic is 17.36."""
    p, _ = mcnemar(86, 150)
    assert p == pytest.approx(scipy.stats.chi2.sf((64 - 1) ** 2 / 236, 1))
    assert p == pytest.approx(4.115e-5, rel=1e-3)


@pytest.mark.parametrize("metric", ["rouge_l_char_f", "bleu_2", "distinct_2"])
def test_all_exchanges_of_few_examples_give_scipys_exact_permutation_test(metric: str) -> None:
    one = get_metric(metric)
    targets = texts(6, 1)
    a, b = near(targets, 0.8, 2), near(targets, 0.5, 3)
    value = bleu if metric == "bleu_2" else lambda p, t: one.score(p, t).value
    found = compare(one, [a], [b], targets, with_interval=False)
    assert found.test == "permutation, exact (all 64 exchanges)"

    def apart(x: Any, y: Any) -> float:
        first, second = ([(a + b)[int(i)] for i in side] for side in (x, y))
        return value(first, targets) - value(second, targets)

    numbers = np.arange(6), np.arange(6) + 6
    theirs = scipy.stats.permutation_test(
        numbers, apart, permutation_type="samples", n_resamples=np.inf
    )
    assert found.difference == pytest.approx(theirs.statistic)
    assert found.p == pytest.approx(theirs.pvalue)


def test_random_exchanges_come_near_all_of_them() -> None:
    targets = texts(12, 1)
    a, b = near(targets, 0.8, 2), near(targets, 0.6, 3)
    exact = compare(BLEU, [a], [b], targets, with_interval=False)
    some = compare(BLEU, [a], [b], targets, with_interval=False, resamples=4000)
    assert "exact" in exact.test
    assert "approximate randomisation, 4,000 exchanges, seed 0" in some.test
    error = (exact.p * (1 - exact.p) / 4000) ** 0.5
    assert abs(some.p - exact.p) < 4 * error + 1e-3


def test_under_no_difference_p_values_are_uniform() -> None:
    """Two systems alike: about a twentieth of the p values lie under 0.05, and half under 0.5."""
    targets = [1] * 60
    ps = [
        compare(
            ACCURACY,
            [labels(60, 0.6, 2 * i)],
            [labels(60, 0.6, 2 * i + 1)],
            targets,
            test="permutation",
            resamples=300,
            with_interval=False,
        ).p
        for i in range(300)
    ]
    assert scipy.stats.binomtest(sum(p < 0.05 for p in ps), 300, 0.05).pvalue > 0.001 or (
        sum(p < 0.05 for p in ps) < 15  # discrete: below the level, never above it
    )
    assert 0.3 < statistics.fmean(p < 0.5 for p in ps) < 0.6


# --- intervals ---


def test_the_interval_of_a_mean_is_scipys_paired_percentile_bootstrap() -> None:
    targets = texts(80, 1)
    a, b = near(targets, 0.8, 2), near(targets, 0.7, 3)
    found = compare(ROUGE, [a], [b], targets)
    each = [ROUGE.parts(side, targets).statistics[:, 0] for side in (a, b)]  # type: ignore[attr-defined]
    theirs = scipy.stats.bootstrap(
        each,
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        paired=True,
        method="percentile",
        n_resamples=10_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found.low == pytest.approx(theirs.low, abs=0.004)
    assert found.high == pytest.approx(theirs.high, abs=0.004)
    assert found.interval.startswith("paired percentile bootstrap over examples, 10,000 resamples")


def test_the_interval_of_a_corpus_metric_is_that_of_resampled_corpora() -> None:
    targets = texts(30, 1)
    a, b = near(targets, 0.8, 2), near(targets, 0.6, 3)
    found = compare(BLEU, [a], [b], targets, resamples=1000)
    drawn = np.random.default_rng(5).integers(0, 30, (150, 30))
    apart = [
        bleu([a[i] for i in d], [targets[i] for i in d])
        - bleu([b[i] for i in d], [targets[i] for i in d])
        for d in drawn
    ]
    low, high = np.quantile(apart, (0.025, 0.975))
    width = high - low
    assert found.low == pytest.approx(low, abs=width / 5)
    assert found.high == pytest.approx(high, abs=width / 5)


def test_distinct_has_the_jackknifes_interval() -> None:
    metric, targets = get_metric("distinct_1"), texts(12, 1)
    a, b = texts(12, 2), ["天地"] * 12
    found = compare(metric, [a], [b], targets)
    assert found.interval.startswith("normal, variance by the paired delete-one jackknife")
    without = []
    for i in range(12):
        sides = [[t for j, t in enumerate(side) if j != i] for side in (a, b)]
        first, second = (metric.score(side, targets[1:]).value for side in sides)
        without.append(first - second)
    half = 1.959963984540054 * (11 * statistics.pvariance(without)) ** 0.5
    assert found.high == pytest.approx(found.difference + half)
    assert found.low == pytest.approx(found.difference - half)


# --- sides of several seeds ---


def test_seeds_of_a_mean_count_with_each_examples_mean() -> None:
    targets = [1] * 40
    a = [labels(40, 0.8, seed) for seed in (1, 2, 3)]
    b = [labels(40, 0.6, seed) for seed in (4, 5)]
    found = compare(ACCURACY, a, b, targets)
    means = [np.mean(side, axis=0) for side in (a, b)]
    assert found.seeds == (3, 2)
    assert found.difference == pytest.approx(float(means[0].mean() - means[1].mean()))
    assert found.a_std == pytest.approx(statistics.stdev(statistics.fmean(s) for s in a))
    assert "randomisation" in found.test  # not right or wrong any more
    theirs = scipy.stats.permutation_test(
        means,
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        permutation_type="samples",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    )
    assert found.p == pytest.approx(theirs.pvalue, abs=0.01)


def test_seeds_of_a_corpus_metric_are_exchanged_together() -> None:
    targets = texts(5, 1)
    a = [near(targets, 0.8, seed) for seed in (1, 2)]
    b = [near(targets, 0.5, seed) for seed in (3, 4)]
    found = compare(BLEU, a, b, targets, with_interval=False)

    def value(side: list[list[str]]) -> float:
        return statistics.fmean(bleu(one, targets) for one in side)

    observed, extreme = abs(value(a) - value(b)), 0
    for mask in itertools.product((0, 1), repeat=5):
        first = [[(y if m else x) for x, y, m in zip(*k, mask)] for k in zip(a, b)]  # noqa: B905
        second = [[(x if m else y) for x, y, m in zip(*k, mask)] for k in zip(a, b)]  # noqa: B905
        extreme += abs(value(first) - value(second)) >= observed - 1e-9
    assert found.p == pytest.approx(extreme / 32)


def test_every_seed_counts_the_same_where_sides_have_other_numbers_of_them() -> None:
    targets = texts(6, 1)
    a, b = [near(targets, 0.8, seed) for seed in (1, 2, 3)], [near(targets, 0.5, 4)]
    found = compare(BLEU, a, b, targets, resamples=200)
    assert found.a == pytest.approx(statistics.fmean(BLEU.score(s, targets).value for s in a))
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.difference <= found.high


# --- deciding ---


@settings(deadline=None, max_examples=10)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_statsmodels_holm(ps: list[float]) -> None:
    assert holm(ps) == pytest.approx(list(multipletests(ps, method="holm")[1]))


def test_equal_predictions_are_a_tie_with_p_1() -> None:
    targets = texts(20, 1)
    for metric in (ROUGE, BLEU, get_metric("distinct_2")):
        found = compare(metric, [targets], [targets], targets)
        assert (found.difference, found.p) == (0.0, 1.0)
        assert found.low == found.high == 0.0
        assert verdict(found.difference, found.p, True) == "tie"


def test_a_verdict_follows_the_direction_of_the_metric() -> None:
    assert [verdict(d, 0.01, up) for d in (0.1, -0.1) for up in (True, False)] == [
        *("win", "loss", "loss", "win"),
    ]
    assert verdict(0.1, 0.05, True) == "tie"


def test_the_same_question_has_the_same_answer_and_the_other_side_its_mirror() -> None:
    targets = texts(40, 1)
    a, b = near(targets, 0.8, 2), near(targets, 0.7, 3)
    one, again = (compare(BLEU, [a], [b], targets, resamples=1000) for _ in range(2))
    mirrored = compare(BLEU, [b], [a], targets, resamples=1000)
    assert one == again
    assert (one.difference, one.p) == (-mirrored.difference, mirrored.p)
    assert one.low == pytest.approx(-mirrored.high)  # type: ignore[operator]


def test_mcnemar_for_what_is_not_right_or_wrong_is_refused() -> None:
    targets = texts(4, 1)
    with pytest.raises(ValueError, match="McNemar"):
        compare(ROUGE, [targets], [targets], targets, test="mcnemar")
