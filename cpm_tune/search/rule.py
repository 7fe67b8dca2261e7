"""Pruning as a stopping rule: training asks after every evaluation on dev, as it always does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from cpm_tune.search.study import Trial
from cpm_tune.tuning.stopping import StopRule


@dataclass
class Pruned:
    """The recipe's own rule, and an end if the trial is worse than the median of earlier ones.

    The last of `most` evaluations prunes nothing: there is nothing left to save.
    """

    rule: StopRule
    most: int
    trial: Trial
    prune: bool
    started: float  # by time.monotonic
    pruned: bool = field(default=False, init=False)

    def best(self, scores: Sequence[float]) -> int:
        """The index of the evaluation whose delta is kept."""
        return self.rule.best(scores)

    def stops(self, scores: Sequence[float]) -> bool:
        """Whether training ends after the last of these evaluations."""
        for number, dev in enumerate(scores, 1):
            self.trial.report(number, dev)
        self.trial.note(seconds=time.monotonic() - self.started)
        if self.rule.stops(scores) or not scores:
            return bool(scores)
        if self.prune and len(scores) < self.most:
            self.pruned = self.trial.is_worse_than_the_median()
        return self.pruned
