"""What a metric is, what it is given, and what it returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cpm_tune.metrics.kinds import KINDS, Kind
from cpm_tune.metrics.parts import Parts

# What values can be: a fraction, which tables show as points of 100; points already; or a number in
# a unit of the metric's own, without a common bound.
Scale = Literal["0..1", "0..100", "own"]


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

    `scale` bounds its values. `prediction` names the kind of its predictions, and with it of its
    targets (see `KINDS`). A prediction of None could not be parsed: it scores as wrong or empty.
    `score` raises ValueError if there are no examples, or not as many predictions as targets.
    `parts` gives the value on any weighting of the examples, which is what comparing two systems
    needs; it raises as `score` does. `right(prediction, target)` says whether one example is right;
    it is None if the metric grades examples or judges only all of them together. `earlier` are the
    versions of before, each with its own signature: records that name one are verified by it.
    """

    name: str
    signature: str
    higher_is_better: bool
    scale: Scale
    prediction: str
    score: Callable[[Sequence[Any], Sequence[Any]], Score]
    parts: Callable[[Sequence[Any], Sequence[Any]], Parts]
    right: Callable[[Any, Any], bool] | None = None
    earlier: tuple[Metric, ...] = ()

    def version(self, signature: str) -> Metric:
        """The version of the metric with this signature; the one of now if there is none."""
        return next((each for each in self.earlier if each.signature == signature), self)

    @property
    def kind(self) -> Kind:
        """What one prediction is."""
        return KINDS[self.prediction]

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest value, by the scale."""
        if self.scale == "own":
            return -math.inf, math.inf
        return 0.0, 1.0 if self.scale == "0..1" else 100.0

    @property
    def points(self) -> int:
        """The factor from a value to what tables show: fractions are shown as points of 100."""
        return 100 if self.scale == "0..1" else 1


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
