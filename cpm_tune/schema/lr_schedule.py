"""Learning-rate schedules by name. To add one, write its function and enter it in `SCHEDULES`: the
setting train.schedule accepts every name there.

A schedule returns the learning rate of a step from the recipe's `lr`, the step (from 1), the
`warmup` and the `total` number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

Schedule = Callable[[float, int, int, int], float]


def noam(lr: float, step: int, warmup: int, total: int) -> float:
    """BMTrain's: linear warm-up, then the inverse square root; the peak is lr / sqrt(warmup)."""
    return lr * min(step * warmup**-1.5, step**-0.5)


def after_warmup(decay: Callable[[float], float]) -> Schedule:
    """A linear warm-up to lr, then lr * decay(progress), with progress from 0 to 1."""

    def schedule(lr: float, step: int, warmup: int, total: int) -> float:
        if step <= warmup:
            return lr * step / warmup
        return lr * decay(min(1.0, (step - warmup) / max(1, total - warmup)))

    return schedule


def cpm_1(lr: float, step: int, warmup: int, total: int) -> float:
    """CPM-1's: a linear warm-up, then a line that would end `warmup` steps after the last one.
    Source: learning_rates.py of TsinghuaAI/CPM-1-Finetune."""
    return lr * (step / warmup if step <= warmup else 1 - (step - warmup) / total)


SCHEDULES: Mapping[str, Schedule] = {
    "noam": noam,
    "linear": after_warmup(lambda progress: 1 - progress),
    "cosine": after_warmup(lambda progress: 0.5 * (1 + math.cos(math.pi * progress))),
    "cpm-1": cpm_1,
    "constant": after_warmup(lambda progress: 1.0),
}
