"""Metrics of order: nDCG and MRR of scored documents, ranks of a word in a list of candidates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from cpm_tune.metrics.base import Metric, Score, pairs, references
from cpm_tune.metrics.families import OURS, mean, proportion
from cpm_tune.metrics.intervals import BOOTSTRAP, bootstrap_median
from cpm_tune.metrics.parts import Median

# The rank of a word that is not among the first 1,000 candidates: as in MultiRD's scorer (Zhang et
# al., AAAI 2020), which counts from 0 and puts it at 1,000.
ABSENT = 1001


def metrics() -> Iterator[Metric]:
    """Yield nDCG, MRR, accuracy at k and the median rank."""
    ties = "tied scores: mean over their orders|no relevant document: 0"
    for k in (1, 3, 5, 10):
        definition = f"scikit-learn {version('scikit-learn')} ndcg_score|k {k}, linear gain|{ties}"
        yield mean(f"ndcg_{k}", "ranking", definition, partial(_ndcg, k))
    yield mean("mrr", "ranking", f"{OURS}|relevant: grade above 0|{ties}", _reciprocal_rank)

    for k in (1, 10, 100):
        definition = f"{OURS}|a right text among the first {k}, whitespace at the ends dropped"
        yield proportion(f"accuracy_at_{k}", "ranks", definition, partial(_found_at, k))
    signature = (
        f"median_rank|{OURS}|ranks from 1, beyond 1000 or absent: {ABSENT}|1..{ABSENT}|{BOOTSTRAP}"
    )
    yield Metric("median_rank", signature, False, "own", "ranks", _median_rank, _median_parts)


def _ordinals(scores: Sequence[float], grades: Sequence[float]) -> list[int]:
    """Scores as whole numbers in the same order, ties kept; NaN is below everything."""
    if len(scores) != len(grades):
        raise ValueError(f"{len(scores)} scores for {len(grades)} graded documents")
    numbers = [-math.inf if math.isnan(score) else float(score) for score in scores]
    place = {score: i for i, score in enumerate(sorted(set(numbers)))}
    return [place[score] for score in numbers]


def _ndcg(k: int, prediction: Sequence[float] | None, target: Sequence[float]) -> float:
    from sklearn.metrics import ndcg_score

    if prediction is None or not any(target):
        return 0.0
    ordinals = _ordinals(prediction, target)
    if len(target) == 1:  # which ndcg_score refuses
        return 1.0
    return float(ndcg_score([target], [ordinals], k=k))


def _reciprocal_rank(prediction: Sequence[float] | None, target: Sequence[float]) -> float:
    """The expected 1 / rank of the first relevant document if tied documents are shuffled."""
    if prediction is None or not any(grade > 0 for grade in target):
        return 0.0
    ordinals = _ordinals(prediction, target)
    best = max(o for o, grade in zip(ordinals, target, strict=True) if grade > 0)
    above = sum(o > best for o in ordinals)
    tied = [grade > 0 for o, grade in zip(ordinals, target, strict=True) if o == best]
    n, relevant = len(tied), sum(tied)
    orders = math.comb(n, relevant)
    # The first relevant one is the j-th of the tie in comb(n - j, relevant - 1) of the orders.
    return sum(
        math.comb(n - j, relevant - 1) / orders / (above + j) for j in range(1, n - relevant + 2)
    )


def _rank(prediction: Sequence[str] | None, target: str | Sequence[str]) -> int:
    right = {text.strip() for text in references(target)}
    places = (i for i, text in enumerate(prediction or (), 1) if text.strip() in right)
    return min(next(places, ABSENT), ABSENT)


def _found_at(k: int, prediction: Sequence[str] | None, target: str | Sequence[str]) -> bool:
    return _rank(prediction, target) <= k


def _median_rank(predictions: Sequence[Any], targets: Sequence[Any]) -> Score:
    return bootstrap_median([_rank(p, t) for p, t in pairs(predictions, targets)])


def _median_parts(predictions: Sequence[Any], targets: Sequence[Any]) -> Median:
    return Median([_rank(p, t) for p, t in pairs(predictions, targets)])
