"""A cell of the board: means over seeds with their 95% intervals, in the unit that is shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from cpm_tune.errors import UserError
from cpm_tune.leaderboard.board import Cell, Cost, SeedRun
from cpm_tune.metrics import get_metric
from cpm_tune.schema.record import AnyRecord, ScoreRecord


def cell_of(
    records: Sequence[AnyRecord],
    cost: Cost,
    notes: Iterable[str],
    settings: Mapping[str, str] | None = None,
) -> Cell:
    """The cell of runs, or of predictions of one system, that differ in their seeds alone."""
    scale = points(records[0].ranks_by)
    values = [scale * record.test.value for record in records]
    scores = [record.scores["test"] for record in records]
    folds = {record.spec.data.fold for record in records} - {None}
    over = f"runs on {len(folds)} folds" if folds else "seeds"
    low, high, method = interval(values, [record.test for record in records], scale, over)
    return Cell(
        mean=mean(values),
        std=stdev(values) if len(values) > 1 else None,
        low=low,
        high=high,
        interval=method,
        runs=[
            SeedRun(
                run_id=record.run_id,
                seed=record.spec.seed,
                value=value,
                low=scale * record.test.low,
                high=scale * record.test.high,
            )
            for record, value in zip(records, values, strict=True)
        ],
        others={
            name: mean(points(name) * score[name].value for score in scores)
            for name in sorted(set.intersection(*map(set, scores)) - {records[0].ranks_by})
        },
        notes=sorted(set(notes)),
        settings=dict(settings or {}),
        cost=cost,
    )


@cache
def points(metric: str) -> int:
    """The factor from a metric's recorded values to the board's: 100 for fractions, which are shown
    in points; 1 for BLEU, perplexity and ranks, and for a metric unknown to this version."""
    try:
        return get_metric(metric).points
    except UserError:
        return 1


def interval(
    values: Sequence[float], scores: Sequence[ScoreRecord], scale: float, over: str = "seeds"
) -> tuple[float, float, str]:
    """A 95% interval and its method: Student's t over seeds (or what `over` names), cut to what a
    score can be, or one run's own interval. Equal scores are not certainty: then the interval spans
    the runs' own."""
    n, middle = len(values), mean(values)
    if min(values) == max(values):
        method = next((p for p in scores[0].signature.split("|") if "interval" in p), "")
        method = method.removeprefix("95% interval: ") or "as recorded"
        low, high = min(score.low for score in scores), max(score.high for score in scores)
        who = "one run" if n == 1 else f"the same score in {n} {over}, so of the runs"
        return scale * low, scale * high, f"{who}: {method}"
    half = _t(n - 1) * stdev(values) / n**0.5
    low, high = middle - half, middle + half
    if scale == 100:
        low, high = max(low, 0.0), min(high, 100.0)
    degrees = "1 degree" if n == 2 else f"{n - 1} degrees"
    return low, high, f"Student's t over {n} {over} ({degrees} of freedom)"


def mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)


def stdev(values: Sequence[float]) -> float:
    """With n - 1 in the denominator. The module statistics works in fractions, 50 times slower."""
    middle = mean(values)
    return math.sqrt(math.fsum((v - middle) ** 2 for v in values) / (len(values) - 1))


@cache
def _t(degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))
