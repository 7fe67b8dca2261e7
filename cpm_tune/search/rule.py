"""Pruning as a stopping rule: training asks after every evaluation on dev, as it always does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from cpm_tune.engine.engine import Engine
from cpm_tune.search.study import Trial
from cpm_tune.tuning.stopping import StopRule


@dataclass
class Pruned:
    """The recipe's own rule, and an end if the trial is worse than the median of earlier ones.

    The last of `most` evaluations prunes nothing: there is nothing left to save. Of several
    processes the one that has the trial decides for all.
    """

    rule: StopRule
    most: int
    trial: Trial | None
    prune: bool
    started: float  # by time.monotonic
    engine: Engine | None = None
    pruned: bool = field(default=False, init=False)

    def best(self, scores: Sequence[float]) -> int:
        """The index of the evaluation whose delta is kept."""
        return self.rule.best(scores)

    def stops(self, scores: Sequence[float]) -> bool:
        """Whether training ends after the last of these evaluations."""
        stops = self._stops(scores, self.trial) if self.trial is not None else False
        return stops if self.engine is None else self.engine.broadcast(stops)

    def _stops(self, scores: Sequence[float], trial: Trial) -> bool:
        for number, dev in enumerate(scores, 1):
            trial.report(number, dev)
        trial.note(seconds=time.monotonic() - self.started)
        if self.rule.stops(scores) or not scores:
            return bool(scores)
        if self.prune and len(scores) < self.most:
            self.pruned = trial.is_worse_than_the_median()
        return self.pruned
