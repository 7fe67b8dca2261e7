"""The three ways from examples to a score that most metrics share: proportion, mean, micro P/R/F.

A metric of a family is one function of a prediction (None: not parsed) and its target; the counts
of the last may be one function of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from cpm_tune.metrics.base import Metric, Score, pairs
from cpm_tune.metrics.intervals import BOOTSTRAP, WILSON, bootstrap, wilson
from cpm_tune.metrics.parts import Sums, share

if TYPE_CHECKING:
    from cpm_tune.metrics.intervals import Array

OURS = "cpm-tune v1"  # raised when one of our own implementations changes what it returns


def proportion(name: str, kind: str, definition: str, right: Callable[[Any, Any], bool]) -> Metric:
    """The share of examples that are right."""

    def score(predictions: Sequence[Any], targets: Sequence[Any]) -> Score:
        return wilson(sum(right(p, t) for p, t in pairs(predictions, targets)), len(targets))

    signature = f"{name}|{definition}|0..1|{WILSON}"
    return Metric(name, signature, True, "0..1", kind, score, rights(right), right)


def rights(right: Callable[[Any, Any], bool]) -> Callable[[Sequence[Any], Sequence[Any]], Sums]:
    """The `parts` of a share of right examples."""

    def parts(predictions: Sequence[Any], targets: Sequence[Any]) -> Sums:
        rows = [(right(p, t), 1) for p, t in pairs(predictions, targets)]
        return Sums(rows, share, "right")

    return parts


def mean(name: str, kind: str, definition: str, one: Callable[[Any, Any], float]) -> Metric:
    """The mean of the examples' scores, each in 0..1."""

    def parts(predictions: Sequence[Any], targets: Sequence[Any]) -> Sums:
        return Sums([(one(p, t), 1) for p, t in pairs(predictions, targets)], share, "mean")

    signature = f"{name}|{definition}|mean over examples|0..1|{BOOTSTRAP}"
    return Metric(name, signature, True, "0..1", kind, bootstrapped(parts), parts)


def bootstrapped(parts: Callable[..., Sums]) -> Callable[[Sequence[Any], Sequence[Any]], Score]:
    """A metric's `score` from its `parts`, with the bootstrap interval."""

    def score(predictions: Sequence[Any], targets: Sequence[Any]) -> Score:
        return bootstrap(parts(predictions, targets))

    return score


Counts = tuple[int, int, int]


def each(
    count: Callable[[Any, Any], Counts],
) -> Callable[[Sequence[Any], Sequence[Any]], list[Counts]]:
    """The counts of all examples from those of one."""
    return lambda predictions, targets: [count(p, t) for p, t in pairs(predictions, targets)]


def micro(
    prefix: str,
    kind: str,
    definition: str,
    counts: Callable[[Sequence[Any], Sequence[Any]], Sequence[Counts]],
    beta: float = 1,
    right: Callable[[Any, Any], bool] | None = None,
) -> Iterator[Metric]:
    """F-beta, precision and recall of summed counts.

    `counts(predictions, targets)` gives each example's hits, how much was predicted, and how much
    there was to find.
    """

    def parts(measure: str, predictions: Sequence[Any], targets: Sequence[Any]) -> Sums:
        return Sums(counts(predictions, targets), partial(_MEASURES[measure], beta=beta))

    rule = "0/0 is 0, but 1 if nothing was predicted and nothing was to be found"
    for measure in _MEASURES:
        name = f"{prefix}f{beta:g}" if measure == "f" else prefix + measure
        signature = f"{name}|{definition}|micro|{rule}|0..1|{BOOTSTRAP}"
        its_parts = partial(parts, measure)
        yield Metric(
            *(name, signature, True, "0..1", kind), bootstrapped(its_parts), its_parts, right
        )


def _f(sums: Array, beta: float) -> Array:
    """F-beta of (hits, predicted, to find) sums (b, 3)."""
    hits, predicted, gold = sums.T
    return _ratio((1 + beta**2) * hits, predicted + beta**2 * gold, sums)


def _precision(sums: Array, beta: float) -> Array:
    return _ratio(sums[:, 0], sums[:, 1], sums)


def _recall(sums: Array, beta: float) -> Array:
    return _ratio(sums[:, 0], sums[:, 2], sums)


def _ratio(above: Array, below: Array, sums: Array) -> Array:
    import numpy as np

    nothing = (sums[:, 1] + sums[:, 2] == 0).astype(np.float64)
    return np.divide(above, below, out=nothing, where=below > 0)


_MEASURES = {"f": _f, "precision": _precision, "recall": _recall}
