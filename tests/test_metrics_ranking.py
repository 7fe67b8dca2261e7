"""nDCG, MRR, accuracy at k and median rank against scikit-learn, permutations and hand counts."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from cpm_tune.metrics import get_metric

RANKING = st.integers(2, 6).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(-2, 2), min_size=n, max_size=n),
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
    )
)
K = pytest.mark.parametrize("k", [1, 3, 5, 10])


def value(name: str, predictions: list[object], targets: list[object]) -> float:
    return get_metric(name).score(predictions, targets).value


def orders(scores: list[int]) -> list[tuple[int, ...]]:
    """All orders of the documents that the scores allow."""
    return [
        order
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]


def dcg(grades: list[int], k: int) -> float:
    return sum(grade / math.log2(i + 2) for i, grade in enumerate(grades[:k]))


@K
@settings(max_examples=30, deadline=None)
@given(RANKING)
def test_ndcg_is_the_mean_over_the_orders_of_tied_documents(
    k: int, ranking: tuple[list[int], list[int]]
) -> None:
    scores, grades = ranking
    ideal = dcg(sorted(grades, reverse=True), k)
    each = [
        dcg([grades[i] for i in order], k) / ideal if ideal else 0.0 for order in orders(scores)
    ]
    assert value(f"ndcg_{k}", [scores], [grades]) == pytest.approx(statistics.fmean(each))


@K
def test_ndcg_is_scikit_learns_averaged_over_queries(k: int) -> None:
    scores = [[0.5, -1.25, 3.0, 0.5], [2.0, 1.0, 0.0, -1.0], [0.1, 0.2, 0.3, 0.4]]
    grades = [[0, 1, 2, 1], [0, 0, 3, 1], [1, 1, 0, 0]]
    expected = ndcg_score(grades, scores, k=k)
    assert value(f"ndcg_{k}", [*scores], [*grades]) == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(RANKING)
def test_mrr_is_the_mean_over_the_orders_of_tied_documents(
    ranking: tuple[list[int], list[int]],
) -> None:
    scores, grades = ranking
    each = [
        next((1 / rank for rank, i in enumerate(order, 1) if grades[i]), 0.0)
        for order in orders(scores)
    ]
    assert value("mrr", [scores], [grades]) == pytest.approx(statistics.fmean(each))


@pytest.mark.parametrize("name", ["ndcg_10", "mrr"])
def test_rules_at_the_edges(name: str) -> None:
    assert value(name, [[0.3]], [[1]]) == 1.0
    assert value(name, [[0.3, 0.2]], [[0, 0]]) == 0.0
    assert value(name, [[math.nan, 0.2]], [[0, 1]]) == 1.0
    assert value(name, [[-math.inf, math.inf]], [[0, 1]]) == 1.0
    with pytest.raises(ValueError, match="2 scores for 3 graded documents"):
        get_metric(name).score([[1.0, 2.0]], [[0, 1, 0]])


def test_a_long_tie_has_an_exact_mrr() -> None:
    """One relevant document in a tie of 1,000: the mean of 1/1 ... 1/1000."""
    expected = sum(1 / i for i in range(1, 1001)) / 1000
    assert value("mrr", [[0.0] * 1000], [[1] + [0] * 999]) == pytest.approx(expected)


def test_ranks_by_hand() -> None:
    """Ranks 1, 2 (second right word), 11, absent, absent, 1002."""
    filler = [f"词{i}" for i in range(1001)]
    found = [["天"], ["地", "玄 "], [*filler[:10], "黄"], None, ["宙"], [*filler, "洪"]]
    true = ["天", ["荒", "玄"], "黄", "宇", "宇", "洪"]
    assert value("accuracy_at_1", [*found], [*true]) == pytest.approx(1 / 6)
    assert value("accuracy_at_10", [*found], [*true]) == pytest.approx(2 / 6)
    assert value("accuracy_at_100", [*found], [*true]) == pytest.approx(3 / 6)
    assert value("median_rank", [*found], [*true]) == statistics.median(
        [1, 2, 11, 1001, 1001, 1001]
    )
    assert value("median_rank", [*found[:3]], [*true[:3]]) == 2
    assert not get_metric("median_rank").higher_is_better
