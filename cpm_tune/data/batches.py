"""The order of training examples: a function of seed and step alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cpm_tune.schema.spec import Recipe


@dataclass(frozen=True)
class GlobalBatch:
    """One optimiser step: its number (from 1), its epoch (from 0) and its row numbers."""

    step: int
    epoch: int
    rows: tuple[int, ...]


def total_steps(n_rows: int, recipe: Recipe) -> int:
    """Optimiser steps of a whole training, unless it stops early."""
    steps = math.ceil(n_rows / recipe.batch_size) * recipe.epochs
    return min(steps, recipe.max_steps) if recipe.max_steps else steps


def global_batches(n_rows: int, recipe: Recipe, seed: int, after: int = 0) -> Iterator[GlobalBatch]:
    """Yield the rows of every step after step `after`: each epoch a new permutation, its last batch
    may be smaller."""
    last = total_steps(n_rows, recipe)
    done = after // math.ceil(n_rows / recipe.batch_size)  # whole epochs
    step = done * math.ceil(n_rows / recipe.batch_size)
    for epoch in range(done, recipe.epochs):
        order = np.random.default_rng([seed, epoch]).permutation(n_rows)
        for start in range(0, n_rows, recipe.batch_size):
            step += 1
            if step > last:
                return
            if step > after:
                rows = order[start : start + recipe.batch_size]
                yield GlobalBatch(step, epoch, tuple(rows.tolist()))
