"""Early stopping: the best evaluation, and when training ends."""

from __future__ import annotations

from math import inf, nan

import pytest

from cpm_tune.schema.spec import Recipe
from cpm_tune.tuning.stopping import stop_rule

SCORES = [0.5, 0.7, 0.6, 0.7, 0.8, 0.1, 0.1]


@pytest.mark.parametrize(
    ("scores", "higher", "lower"),
    [
        (SCORES, 4, 5),
        ([0.5], 0, 0),
        ([0.5, 0.5], 0, 0),
        ([-inf, 0.2, inf], 2, 0),
        ([nan, 0.5], 0, 0),
    ],
)
def test_the_best_evaluation_is_the_first_of_equals_in_the_metrics_direction(
    scores: list[float], higher: int, lower: int
) -> None:
    assert stop_rule(Recipe(), higher_is_better=True).best(scores) == higher
    assert stop_rule(Recipe(), higher_is_better=False).best(scores) == lower


@pytest.mark.parametrize(("patience", "end"), [(0, None), (1, 3), (2, 4), (3, None)])
def test_training_ends_after_evaluations_in_a_row_that_were_not_better(
    patience: int, end: int | None
) -> None:
    rule = stop_rule(Recipe(patience=patience), higher_is_better=True)
    ends = [n for n in range(len(SCORES) + 1) if rule.stops(SCORES[:n])]
    assert (ends[0] if ends else None) == end
