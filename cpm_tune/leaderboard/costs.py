"""The costs of cells and rows: parameters, bytes, speed, time, memory, parallel efficiency."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence

from cpm_tune.leaderboard.board import Cell, Cost, Scaling
from cpm_tune.leaderboard.means import stdev
from cpm_tune.schema.record import RunRecord


def cell_cost(records: Sequence[RunRecord], repeats: Sequence[RunRecord]) -> Cost:
    """The cost of equal runs. `repeats`, the same runs again, count for the efficiency and the
    spread."""
    speeds = [r.training.samples_per_second for r in records if r.training]
    places = [r.environment for r in records if r.environment]
    energy = [p.energy_joules for p in places if p.energy_joules is not None]
    again = _with_as_many([*records, *repeats])
    return Cost(
        n_trainable=max(r.delta.n_trainable for r in records),
        bytes=max(r.delta.bytes for r in records),
        samples_per_second=statistics.fmean(speeds) if speeds else None,
        seconds=statistics.fmean(p.seconds for p in places) if places else None,
        peak_memory_bytes=max(p.peak_memory_bytes for p in places) if places else None,
        energy_joules=statistics.fmean(energy) if energy else None,
        samples_per_second_std=_std([r.training.samples_per_second for r in again if r.training]),
        seconds_std=_std([r.environment.seconds for r in again if r.environment]),
        scaling=_scaling([*records, *repeats]),
    )


def _with_as_many(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The records with as many processes as the first."""
    sizes = [record.environment.world_size if record.environment else None for record in records]
    return [record for record, size in zip(records, sizes, strict=True) if size == sizes[0]]


def _std(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def _scaling(records: Sequence[RunRecord]) -> list[Scaling]:
    speeds: dict[int, list[float]] = defaultdict(list)
    for record in records:
        if record.training and record.environment:
            speeds[record.environment.world_size].append(record.training.samples_per_second)
    if set(speeds) <= {1}:
        return []
    means = {size: statistics.fmean(values) for size, values in sorted(speeds.items())}
    alone = means.get(1)
    return [
        Scaling(
            world_size=size,
            samples_per_second=speed,
            efficiency=speed / (size * alone) if alone else None,
        )
        for size, speed in means.items()
    ]


def row_cost(cells: Iterable[Cell], over_all: Cost) -> Cost:
    """The cost of a row: that of all its runs, but the wall times of its datasets add up.

    Parallel efficiency and spread are those of one dataset, so a row of several datasets has none.
    """
    cells = list(cells)
    one = len(cells) == 1
    energy = [c.cost.energy_joules for c in cells if c.cost.energy_joules is not None]
    seconds = [cell.cost.seconds for cell in cells if cell.cost.seconds is not None]
    return over_all.model_copy(
        update={
            "seconds": sum(seconds) if seconds else None,
            "energy_joules": sum(energy) if energy else None,
            "samples_per_second_std": over_all.samples_per_second_std if one else None,
            "seconds_std": over_all.seconds_std if one else None,
            "scaling": over_all.scaling if one else [],
        }
    )
