"""The numbers of the figures: capability means, the Pareto front, learning curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cpm_tune.leaderboard.board import Board, Column, MeasuredRow, PublishedRow
from cpm_tune.leaderboard.hierarchy import CAPABILITIES, Dataset, mean_over_hierarchy
from cpm_tune.leaderboard.means import mean
from cpm_tune.schema.record import CurvePoint, RunRecord

FORGETTING = "forgetting"
_ROWS = "train.rows"


@dataclass(frozen=True)
class Point:
    """A row's cost and quality (higher is better)."""

    name: str
    cost: float
    quality: float


@dataclass(frozen=True)
class Curve:
    """One run's evaluations on dev."""

    row: str
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class Amount:
    """Scores of one row of a board with `n` rows of train: mean, and lowest and highest seed."""

    n: int
    mean: float
    low: float
    high: float


def primary(board: Board) -> list[Column]:
    """One column per dataset, the first measured one: means are taken over these, as on the page.
    Columns of trials (sample data, limits) count only where there are no official ones."""
    measured = board.columns_of(board.rows)
    first: dict[str, Column] = {}
    for column in [column for column in measured if column.official] or measured:
        if column.higher_is_better:
            first.setdefault(column.task, column)
    return list(first.values())


def hierarchy_mean(scores: Mapping[str, float], columns: Sequence[Column]) -> float | None:
    """The mean over the columns' datasets through the hierarchy; None if one is missing."""
    if not columns or any(column.id not in scores for column in columns):
        return None
    return mean_over_hierarchy((Dataset(c.capability, c.kind), scores[c.id]) for c in columns)


def scores(row: MeasuredRow | PublishedRow) -> dict[str, float]:
    """A row's scores by column."""
    if isinstance(row, PublishedRow):
        return {name: score.value for name, score in row.cells.items()}
    return {name: cell.mean for name, cell in row.cells.items()}


def capability_means(board: Board, row: MeasuredRow | PublishedRow) -> list[float | None]:
    """A row's mean in each of the seven capabilities; None if a dataset is missing."""
    columns, by_column = primary(board), scores(row)
    return [
        hierarchy_mean(by_column, [c for c in columns if c.capability == name])
        for name in CAPABILITIES
    ]


def points(board: Board, cost: str) -> list[Point]:
    """Cost and mean score of the measured rows that have all datasets.

    `cost` is a field of Cost, such as n_trainable, or forgetting.
    """
    columns = primary(board)
    plotted = []
    for row in board.rows:
        value = row.forgetting if cost == FORGETTING else getattr(row.cost, cost)
        quality = hierarchy_mean(scores(row), columns)
        if value is not None and quality is not None:
            plotted.append(Point(row.id, float(value), quality))
    return plotted


def without_points(board: Board, cost: str) -> str:
    """Why no row has a point of cost and quality: one sentence."""
    columns = primary(board)
    if any(hierarchy_mean(scores(row), columns) is not None for row in board.rows):
        return f"cost-quality.{cost} is not drawn: no row with all datasets has that cost."
    names = ", ".join(column.id for column in columns) or "of which higher is better"
    return f"cost-quality.{cost} is not drawn: no row has a score in all of the columns {names}."


def pareto_front(points: Iterable[Point], more_is_better: bool = False) -> list[Point]:
    """The points, by cost, for which no other has at least the quality at no higher cost (with
    `more_is_better`: at no lower one)."""
    sign = -1 if more_is_better else 1
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (sign * p.cost, -p.quality)):
        if not front or point.quality > front[-1].quality:
            front.append(point)
    return front


def curves(
    column: Column, rows: Sequence[MeasuredRow], records: Mapping[str, RunRecord]
) -> list[Curve]:
    """The learning curves of rows in a column, one per seed, dev scores in the column's unit."""
    scale = 100 if column.unit == "points" else 1
    drawn = []
    for row in rows:
        for run in row.cells[column.id].runs if column.id in row.cells else ():
            record = records.get(run.run_id)  # an outside system has none
            if record is not None and record.training is not None and record.training.curve:
                scaled = tuple(
                    point.model_copy(update={"dev": scale * point.dev})
                    for point in record.training.curve
                )
                drawn.append(Curve(row.id, scaled))
    return drawn


def amounts(
    column: Column, rows: Sequence[MeasuredRow], records: Mapping[str, RunRecord]
) -> dict[str, list[Amount]]:
    """Scores over the number of training rows: for every row that differs from another one in
    train.rows alone, those of both under one name, by the number."""
    curves: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        parts = [row.backbone, row.control, row.delta]
        parts += [f"{key}={value}" for key, value in row.settings.items() if key != _ROWS]
        at = curves.setdefault(" / ".join(filter(None, parts)), {})
        for run in row.cells[column.id].runs if column.id in row.cells else ():
            record = records.get(run.run_id)  # an outside system has none
            if record is not None and record.training is not None and "train" in record.data:
                at.setdefault(record.data["train"].n, []).append(run.value)
    return {
        name: [
            Amount(n, mean(values), min(values), max(values)) for n, values in sorted(at.items())
        ]
        for name, at in curves.items()
        if len(at) > 1
    }
