"""Metrics by name: thin wrappers over the field's libraries, with signature and interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

from cpm_tune.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Score:
    """A metric's value on a set of examples with its 95% interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Metric:
    """A named metric. `score(predictions, targets)`; `higher_is_better` gives its direction."""

    name: str
    signature: str
    higher_is_better: bool
    score: Callable[[Sequence[Any], Sequence[Any]], Score]


def _accuracy(predictions: Sequence[Any], targets: Sequence[Any]) -> Score:
    from scipy.stats import binomtest
    from sklearn.metrics import accuracy_score

    right = int(accuracy_score(targets, predictions, normalize=False))
    interval = binomtest(right, len(targets)).proportion_ci(0.95, method="wilson")
    return Score(right / len(targets), float(interval.low), float(interval.high), len(targets))


@cache
def _metrics() -> dict[str, Metric]:
    accuracy = f"accuracy|scikit-learn {version('scikit-learn')}|95% interval: Wilson"
    return {"accuracy": Metric("accuracy", accuracy, True, _accuracy)}


def get_metric(name: str) -> Metric:
    """Return a metric by name; raise UserError with the nearest name otherwise."""
    metrics = _metrics()
    if name not in metrics:
        raise UserError(f"there is no metric '{name}'.{did_you_mean(name, metrics)}")
    return metrics[name]


def majority(train_targets: Sequence[int]) -> int:
    """The most frequent target; the smallest of equally frequent ones."""
    counts: dict[int, int] = {}
    for target in train_targets:
        counts[target] = counts.get(target, 0) + 1
    return min(counts, key=lambda target: (-counts[target], target))
