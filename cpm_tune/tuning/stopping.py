"""Early stopping: which evaluation on dev is the best one, and when training need not go on.

A rule sees the dev scores so far, in order, and nothing else, so a resumed run decides as one that
was never stopped. Another rule is another class here, chosen in `stop_rule`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cpm_tune.schema.spec import Recipe


class StopRule(Protocol):
    """What the training loop asks after every evaluation."""

    def best(self, scores: Sequence[float]) -> int:
        """The index of the evaluation whose delta is kept."""

    def stops(self, scores: Sequence[float]) -> bool:
        """Whether training ends after the last of these evaluations."""


@dataclass(frozen=True)
class Patience:
    """Keep the best evaluation, of equal ones the first; stop after `patience` evaluations in a row
    that were not better (0: never)."""

    patience: int
    higher_is_better: bool

    def best(self, scores: Sequence[float]) -> int:
        sign, best = 1 if self.higher_is_better else -1, 0
        for number, score in enumerate(scores):
            if sign * score > sign * scores[best]:
                best = number
        return best

    def stops(self, scores: Sequence[float]) -> bool:
        return 0 < self.patience <= len(scores) - 1 - self.best(scores)


def stop_rule(recipe: Recipe, higher_is_better: bool) -> StopRule:
    """The rule that a recipe asks for, on a dev metric of this direction."""
    return Patience(recipe.patience, higher_is_better)
