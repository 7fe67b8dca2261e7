"""A cell of the board: means over seeds with their 95% intervals, in the unit that is shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from cpm_tune.errors import UserError
from cpm_tune.leaderboard.board import Cell, Column, Cost, SeedRun
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
    units, over = _units(records)
    means = [scale * unit.value for unit in units]
    low, high, method = interval(means, units, scale, over)
    return Cell(
        mean=mean(means),
        std=stdev(means) if len(means) > 1 else None,
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


def folds_of(records: Iterable[AnyRecord]) -> set[int]:
    """The folds of runs; none if they have no folds."""
    return {fold for record in records if (fold := record.spec.data.fold) is not None}


def note_folds(cells: Sequence[Cell], records: Mapping[str, AnyRecord]) -> None:
    """Mark those of a column's cells that lack folds which other ones have, in words as well."""
    folds = [folds_of(records[run.run_id] for run in cell.runs) for cell in cells]
    every = set().union(*folds)
    for cell, of in zip(cells, folds, strict=True):
        if of != every:
            numbers = ", ".join(map(str, sorted(of)))
            cell.missing_folds = sorted(every - of)
            cell.notes.append(f"folds {numbers} of {len(every)}, so it has no place")


def judge(column: Column, cells: Iterable[Cell]) -> None:
    """Mark those of a column's cells that are not above its best shortcut by their interval."""
    sign = 1 if column.higher_is_better else -1
    shortcuts = column.shortcuts
    best = max(shortcuts, key=lambda name: sign * shortcuts[name], default="")
    for cell in cells:
        end = cell.low if column.higher_is_better else cell.high
        if best and sign * (end - shortcuts[best]) <= 0:
            cell.not_above = best


def _units(records: Sequence[AnyRecord]) -> tuple[list[ScoreRecord], str]:
    """The scores that a mean and its interval are over, and their name: of each run, or with
    several folds of each fold, where seeds are averaged first, as runs on one fold are not
    independent."""
    by_fold: dict[int | None, list[ScoreRecord]] = {}
    for record in records:
        by_fold.setdefault(record.spec.data.fold, []).append(record.test)
    if len(by_fold) == 1:
        return [record.test for record in records], "seeds"
    averaged = [
        each[0].model_copy(
            update={
                name: mean(getattr(score, name) for score in each)
                for name in ("value", "low", "high")
            }
        )
        for each in by_fold.values()
    ]
    seeds = len(records) > len(by_fold)
    return averaged, "folds" + ", seeds of each averaged first" * seeds


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
    """A 95% interval and its method, cut to what a score can be: one run's own, or with several the
    runs' own (rows are a sample) and Student's t over seeds (or what `over` names), as the root of
    the summed squares, because they are independent."""
    n, middle = len(values), mean(values)
    half = _t(n - 1) * stdev(values) / n**0.5 if n > 1 else 0.0
    below = mean(value - scale * score.low for value, score in zip(values, scores, strict=True))
    above = mean(scale * score.high - value for value, score in zip(values, scores, strict=True))
    low, high = middle - math.hypot(half, below), middle + math.hypot(half, above)
    if scale == 100:
        low, high = max(low, 0.0), min(high, 100.0)
    method = next((p for p in scores[0].signature.split("|") if "interval" in p), "")
    method = method.removeprefix("95% interval: ") or "as recorded"
    if n == 1:
        return low, high, f"one run: {method}"
    degrees = "1 degree" if n == 2 else f"{n - 1} degrees"
    seeds = f"Student's t over {n} {over} ({degrees} of freedom)"
    return low, high, f"of the runs ({method}) and {seeds}"


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
