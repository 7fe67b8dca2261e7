"""Learning-rate schedules as functions of the step."""

from __future__ import annotations

import math

from cpm_tune.schema.spec import Recipe


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """Return the learning rate of a step (from 1) of `total`; see `Recipe` for the definitions."""
    if recipe.schedule == "noam":
        return recipe.lr * min(step * recipe.warmup**-1.5, step**-0.5)
    if step <= recipe.warmup:
        return recipe.lr * step / recipe.warmup
    if recipe.schedule == "constant":
        return recipe.lr
    progress = (step - recipe.warmup) / max(1, total - recipe.warmup)
    if recipe.schedule == "linear":
        return recipe.lr * max(0.0, 1 - progress)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
