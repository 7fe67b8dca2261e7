"""What holds for every metric: bounds, intervals, order, identity, None; and the intervals."""

from __future__ import annotations

import json
import math
import random
import statistics
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from cpm_tune.errors import UserError
from cpm_tune.metrics import KINDS, Metric, get_metric, metric_names
from cpm_tune.metrics.edits import edits

CHARACTERS = "天地玄黄宇宙洪荒a1，"
TEXT = st.text(CHARACTERS, max_size=12)
SPANS = st.lists(st.tuples(st.integers(0, 5), st.integers(5, 9), st.sampled_from(["dis", "bod"])))
EDITS = st.lists(st.tuples(st.integers(0, 3), st.integers(3, 5), st.sampled_from(["", "天"])))
GRADED = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(allow_infinity=True, allow_nan=True), min_size=n, max_size=n),
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
    )
)


def corrections(texts: tuple[str, list[str]]) -> dict[str, Any]:
    source, corrected = texts
    return {"source": source, "edits": [edits(source, text) for text in corrected]}


EXAMPLES: dict[str, st.SearchStrategy[tuple[Any, Any]]] = {
    "label": st.tuples(st.sampled_from([0, 1, 2, "0", "1", "NA"]), st.sampled_from([0, 1, 2])),
    "text": st.tuples(TEXT, st.one_of(TEXT, st.lists(TEXT, max_size=3))),
    "spans": st.tuples(SPANS, SPANS),
    "words": st.tuples(st.lists(TEXT), st.lists(TEXT)),
    "edits": st.tuples(EDITS, st.lists(EDITS, max_size=3)),
    "correction": st.tuples(TEXT, st.tuples(TEXT, st.lists(TEXT, max_size=3)).map(corrections)),
    "ranking": GRADED,
    "ranks": st.tuples(st.lists(TEXT), TEXT),
    "equation": st.tuples(st.text("x=12+-*/()%.", max_size=8), st.sampled_from(["1", "1/2"])),
    "cosine": st.tuples(st.floats(-1, 1), st.none()),
    "nll": st.tuples(st.tuples(st.floats(0, 1e6, allow_nan=False), st.integers(0, 50)), st.none()),
}
# One target a kind, and the prediction that is as good as can be.
IDENTICAL: dict[str, tuple[Any, Any]] = {
    "label": (1, 1),
    "text": ("天 地 玄 黄 ，", "天 地 玄 黄 ，"),
    "spans": ([(0, 2, "dis")], [[0, 2, "dis"]]),
    "words": (["天地", "玄黄"], ["天地", "玄黄"]),
    "edits": ([(0, 1, "天")], [[[1, 2, ""]], [[0, 1, "天"]]]),
    "correction": ("玄天地", {"source": "天地", "edits": [[[0, 1, "地"]], [[0, 0, "玄"]]]}),
    "ranking": ([0.0, 2.0, 1.0], [0, 2, 1]),
    "ranks": (["天", "地"], "天"),
    "equation": ("x=44*20", {"answer": "880"}),
    "nll": ((0.0, 7), None),
    "cosine": (1.0, None),
}
# Predictions with nothing in them; a target that they miss.
EMPTY: dict[str, list[Any]] = {
    "label": [None, "", 0],
    "text": [None, "", " "],
    "spans": [None, []],
    "words": [None, [], [""]],
    "edits": [None, []],
    "correction": [None, "", "天地"],
    "ranking": [None],
    "ranks": [None, [], [""]],
    "equation": [None, "", "x="],
    "nll": [None, (math.inf, 3), (math.nan, 3)],
    "cosine": [None, -0.5],
}
METRICS = [get_metric(name) for name in metric_names()]
READING = [metric for metric in METRICS if not metric.name.startswith("distinct")]
BLEU = [metric.name for metric in METRICS if metric.name.startswith("bleu")]


def best(metric: Metric) -> float:
    return 100.0 if metric.name in BLEU else 1.0


def worst(metric: Metric) -> float:
    return {"perplexity": sys.float_info.max, "median_rank": 1001.0}.get(metric.name, 0.0)


@pytest.fixture(params=METRICS, ids=lambda metric: metric.name)
def metric(request: pytest.FixtureRequest) -> Metric:
    return request.param


def test_scores_are_in_bounds_and_in_their_interval_whatever_the_order(metric: Metric) -> None:
    @settings(max_examples=8, deadline=None)
    @given(st.lists(EXAMPLES[metric.prediction], min_size=1, max_size=5), st.randoms())
    def check(examples: list[tuple[Any, Any]], shuffler: random.Random) -> None:
        score = metric.score(*zip(*examples, strict=True))
        bottom, top = sorted((best(metric), worst(metric)))
        bounds = (bottom, score.low, score.value, score.high, top * (1 + 1e-9))
        assert list(bounds) == sorted(bounds)
        assert score.n == len(examples)
        if metric.name.startswith("m2"):  # chooses an annotator by the sentences before
            return
        shuffler.shuffle(examples)
        assert metric.score(*zip(*examples, strict=True)) == score

    check()


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("metric", READING, ids=lambda metric: metric.name)
def test_gold_fed_back_is_the_best(metric: Metric, n: int) -> None:
    prediction, target = IDENTICAL[metric.prediction]
    score = metric.score([prediction] * n, [target] * n)
    assert score.value == pytest.approx(best(metric), rel=1e-12)
    assert (score.low if metric.higher_is_better else score.high) <= score.value * (1 + 1e-12)


def test_what_could_not_be_parsed_and_what_is_empty_is_worst(metric: Metric) -> None:
    _, target = IDENTICAL[metric.prediction]
    for empty in EMPTY[metric.prediction]:
        if empty == " " and metric.name in ("bleu_4_cpm2", "rouge_l_cpm2"):
            continue  # a space is a character of theirs
        score = metric.score([empty], [target])
        assert score.value == worst(metric), empty
        assert score.n == 1


@pytest.mark.parametrize("metric", READING, ids=lambda metric: metric.name)
def test_a_prediction_that_could_not_be_parsed_is_not_dropped(metric: Metric) -> None:
    prediction, target = IDENTICAL[metric.prediction]
    whole = metric.score([prediction] * 3, [target] * 3)
    part = metric.score([prediction, None, None], [target] * 3)
    assert part.n == 3
    if not metric.name.endswith("precision"):
        assert (part.value < whole.value) is metric.higher_is_better


@pytest.mark.parametrize("lengths", [(1, 2), (2, 1), (0, 0)])
def test_as_many_predictions_as_targets(metric: Metric, lengths: tuple[int, int]) -> None:
    prediction, target = IDENTICAL[metric.prediction]
    with pytest.raises(ValueError, match=r"predictions for|no examples"):
        metric.score([prediction] * lengths[0], [target] * lengths[1])


def test_signatures_name_metric_interval_and_scale_and_differ() -> None:
    assert len({metric.signature for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.signature.startswith(metric.name + "|")
        assert "|95% interval: " in metric.signature
        if metric.name != "accuracy":
            assert f"|{'0' if metric.higher_is_better else '1'}.." in metric.signature
        assert get_metric(metric.name) is metric


def test_the_scale_is_the_one_of_the_signature() -> None:
    for metric in METRICS:
        assert (metric.scale == "0..100") == (metric.name in BLEU)
        assert (metric.scale == "own") == (not metric.higher_is_better)
        assert metric.points == (100 if metric.scale == "0..1" else 1)
        if metric.scale != "own" and metric.name != "accuracy":
            assert f"|{metric.scale}|" in metric.signature


def test_a_metric_that_judges_examples_says_which_are_right(metric: Metric) -> None:
    prediction, target = IDENTICAL[metric.prediction]
    judges = metric.parts([prediction], [target]).form == "right"
    if metric.right is None:
        assert not judges
        return
    assert metric.right(prediction, target) is True
    assert metric.right(None, target) is False
    if judges:
        examples = [(prediction, target), (None, target), (prediction, target)]
        predictions, targets = zip(*examples, strict=True)
        assert metric.score(predictions, targets).value == pytest.approx(2 / 3)


def test_every_kind_is_some_metrics_and_checks_what_a_file_holds() -> None:
    assert set(KINDS) == {metric.prediction for metric in METRICS} == set(IDENTICAL)
    for name, kind in KINDS.items():
        prediction, target = IDENTICAL[name]
        read = json.loads(json.dumps("1" if name == "label" else prediction))
        assert kind.expected({"no": "prediction"}, target)
        assert kind.likelihood or kind.expected(read, target) == ""
        if kind.from_gold is not None and name != "ranking":
            gold = json.loads(json.dumps(target))
            assert json.loads(json.dumps(prediction)) in kind.from_gold(gold)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"no metric 'rouge_l_chr_f'. Did you mean 'rouge_l_char_f'"
    ):
        get_metric("rouge_l_chr_f")


def test_listing_metrics_imports_nothing_heavy() -> None:
    code = (
        "import sys; from cpm_tune.metrics import get_metric, metric_names\n"
        "assert all(get_metric(n).signature for n in metric_names())\n"
        "heavy = {'numpy', 'scipy', 'sklearn', 'nltk', 'sacrebleu', 'rouge_score', 'jieba'}\n"
        "print(*heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_bootstrap_of_a_mean_agrees_with_scipys() -> None:
    source = random.Random(3)
    texts = ["".join(source.choices(CHARACTERS, k=6)) for _ in range(400)]
    targets = ["".join(source.choices(CHARACTERS, k=6)) for _ in range(400)]
    metric = get_metric("char_f1")
    score = metric.score(texts, targets)
    each = [metric.score([p], [t]).value for p, t in zip(texts, targets, strict=True)]
    theirs = scipy.stats.bootstrap(
        (each,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert score.value == pytest.approx(statistics.fmean(each))
    close = 0.1 * (theirs.high - theirs.low)
    assert (score.low, score.high) == (
        pytest.approx(theirs.low, abs=close),
        pytest.approx(theirs.high, abs=close),
    )


def test_more_examples_than_are_drawn_at_once() -> None:
    n = 30_011
    predictions = [1] * n
    targets = [1 if i % 4 else 0 for i in range(n)]
    score = get_metric("precision").score(predictions, targets)
    half = 1.96 * math.sqrt(0.75 * 0.25 / n)
    assert score.value == pytest.approx(0.75, abs=1e-4)
    assert (score.high - score.low) / 2 == pytest.approx(half, rel=0.1)


def test_the_jackknife_leaves_each_example_out_in_turn() -> None:
    texts = ["天地玄黄", "天地", "宇宙洪荒天地", "", "黄天"]
    metric = get_metric("distinct_2")
    score = metric.score(texts, texts)
    others = [texts[:i] + texts[i + 1 :] for i in range(5)]
    without = [metric.score(o, o).value for o in others]
    error = math.sqrt(4 / 5 * sum((w - statistics.fmean(without)) ** 2 for w in without))
    assert score.low == pytest.approx(score.value - 1.96 * error, abs=1e-4)
    assert score.high == pytest.approx(min(1, score.value + 1.96 * error), abs=1e-4)


def test_wilsons_interval_where_the_bootstrap_would_have_no_width() -> None:
    score = get_metric("exact_match").score(["天"] * 20, ["天"] * 20)
    z = 1.959963984540054
    assert score.value == score.high == 1.0
    assert score.low == pytest.approx(20 / (20 + z * z))


def test_perplexity_is_per_token_and_micro() -> None:
    score = get_metric("perplexity").score([(6.0, 3), (1.0, 1), (0.0, 3)], [None] * 3)
    assert score.value == pytest.approx(math.e)
    assert get_metric("perplexity").score([(1e9, 1)], [None]).value == sys.float_info.max
