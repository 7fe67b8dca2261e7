"""What a metric is, what it is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cpm_tune.metrics.parts import Parts

Kind = Literal[
    "label",  # a label, whole number or text; the target likewise
    "text",  # a str; the target is a str or a list of reference strs
    "spans",  # a list of (start, end, type); the target likewise
    "words",  # a list of words; the target likewise
    "edits",  # a list of (start, end, replacement); the target is one such list per annotator
    "ranking",  # a list of scores; the target is the list of relevance grades in the same order
    "ranks",  # a list of texts, best first; the target is the right text or a list of right ones
    "equation",  # an equation's text; the target is the answer or {"answer": the answer}
    "nll",  # (summed negative log-likelihood in nats, number of tokens); the target is not read
]


@dataclass(frozen=True)
class Score:
    """A metric's value on a set of examples with its 95% interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Metric:
    """A named metric. `score(predictions, targets)`; `higher_is_better` gives its direction.

    `prediction` says what one prediction is, and with it what one target is (see `Kind`). A
    prediction of None could not be parsed: it scores as wrong or empty. `score` raises ValueError
    if there are no examples, or not as many predictions as targets. `parts` gives the value on any
    weighting of the examples, which is what comparing two systems needs; it raises as `score` does.
    """

    name: str
    signature: str
    higher_is_better: bool
    prediction: Kind
    score: Callable[[Sequence[Any], Sequence[Any]], Score]
    parts: Callable[[Sequence[Any], Sequence[Any]], Parts]


def pairs(predictions: Sequence[Any], targets: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Predictions with their targets; ValueError if they are not as many, or none."""
    if len(predictions) != len(targets):
        raise ValueError(f"{len(predictions)} predictions for {len(targets)} targets")
    if len(targets) == 0:
        raise ValueError("no examples to score")
    return list(zip(predictions, targets, strict=True))


def references(target: str | Sequence[str]) -> list[str]:
    """The reference texts of a target: itself, or the texts it lists."""
    return [target] if isinstance(target, str) else list(target) or [""]
