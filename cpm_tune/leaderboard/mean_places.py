"""The places that rows may have by a mean over datasets: both indices, and the plain mean.

A mean is a weighted sum of scores of datasets. In each dataset the same examples are drawn for all
rows (paired bootstrap, or the delete-one jackknife for a metric that drawing twice lowers), which
gives the covariance of the rows' scores. Datasets are independent, so that of a mean is the sum,
by squared weights. A pair of rows differs if its difference is too large for a normal distribution
of that variance, by Holm's correction over all pairs; places: `cpm_tune.leaderboard.ties`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from cpm_tune.errors import UserError
from cpm_tune.leaderboard.board import (
    Board,
    Cell,
    Index,
    IndexRule,
    MeasuredRow,
    Places,
    PublishedRow,
)
from cpm_tune.leaderboard.compare import LEVEL
from cpm_tune.leaderboard.figures import hierarchy_mean, primary, scores
from cpm_tune.leaderboard.hierarchy import Dataset, mean_over_hierarchy
from cpm_tune.leaderboard.indices import weights_of
from cpm_tune.leaderboard.means import points
from cpm_tune.leaderboard.statistics import drawn, holm, leaving_one_out, verdict
from cpm_tune.leaderboard.ties import Folders, Verdicts, places, read_cells
from cpm_tune.metrics import get_metric
from cpm_tune.metrics.parts import Parts
from cpm_tune.systems.predictions import FOREIGN, from_predictions

if TYPE_CHECKING:
    from cpm_tune.metrics.parts import Array

RESAMPLES = 1_000
_SAME = 1e-9  # a standard error of rounding alone
MEAN = "mean"
_RULE = (
    "scores averaged over datasets to kinds, over kinds to capabilities, over capabilities, of the "
    "rows that have all datasets."
)


@dataclass(frozen=True)
class _Mean:
    """A mean of some rows: the weight of each column's score, of that metric."""

    rows: Sequence[MeasuredRow]
    weights: Mapping[str, tuple[str, float]]


class _Covariances:
    """The covariance of rows' scores in a column, computed once for each set of rows."""

    def __init__(self, folders: Folders, seed: int) -> None:
        self._folders, self._seed = folders, seed
        self._known: dict[tuple[object, ...], tuple[Array, Array]] = {}

    def of(self, column: str, metric: str, rows: Sequence[MeasuredRow]) -> tuple[Array, Array]:
        """Scores (rows,) and their covariance (rows, rows), in the board's unit."""
        key = (column, metric, tuple(row.id for row in rows))
        if key not in self._known:
            cells = [row.cells[column] for row in rows]
            self._known[key] = self._compute(metric, cells)
        return self._known[key]

    def _compute(self, name: str, cells: Sequence[Cell]) -> tuple[Array, Array]:
        import numpy as np

        metric, scale = get_metric(name), points(name)
        if not from_predictions(name):
            raise UserError(f"{name} is no value of predictions")
        seeds = read_cells(cells, self._folders)
        targets = seeds[0][0].targets
        parts = [[metric.parts(list(one.predictions), targets) for one in of] for of in seeds]
        n, smooth = len(targets), parts[0][0].smooth
        blocks = drawn(n, RESAMPLES, self._seed) if smooth else leaving_one_out(n)
        resampled = scale * np.concatenate([_values(parts, weights) for weights in blocks], axis=1)
        factor = 1.0 if smooth else (n - 1) ** 2 / n  # a jackknife's replicates vary that much less
        values = scale * _values(parts, np.ones((1, n)))[:, 0]
        return values, factor * np.atleast_2d(np.cov(resampled))


def _values(parts: Sequence[Sequence[Parts]], weights: Array) -> Array:
    """Each row's score, the mean over its seeds, under each weighting: (rows, b)."""
    import numpy as np

    return np.stack([np.mean([seed.values(weights) for seed in of], axis=0) for of in parts])


def add_mean_places(board: Board, folders: Folders, seed: int = 0) -> list[str]:
    """Give the rows their mean over the board's datasets, and the places in it and in both indices.
    Returns one sentence per mean without places."""
    _add_means(board)
    covariances, notes = _Covariances(folders, seed), list[str]()
    for name in board.indices:
        rows = [
            row
            for row in board.rows
            if row.indices[name].value is not None
            and not any(cell.missing_folds for cell in row.cells.values())
        ]
        if len(rows) < 2:
            continue
        try:
            found = _places(_Mean(rows, _weights(board, name)), covariances)
        except UserError as error:
            notes.append(f"{name}: no places, {error}")
            continue
        except FOREIGN as error:
            notes.append(f"{name}: no places, a metric does not take its predictions ({error})")
            continue
        for row, place in zip(rows, found, strict=True):
            row.indices[name].places = place
    return notes


def _add_means(board: Board) -> None:
    """The plain mean as an index of its own, if there are two datasets or more."""
    columns = primary(board)
    if len(columns) < 2:
        return
    board.indices[MEAN] = IndexRule(
        title=f"mean of {len(columns)} datasets",
        rule=_RULE,
        columns={column.task: column.id for column in columns},
        baseline="none",
    )
    every: list[MeasuredRow | PublishedRow] = [*board.rows, *board.quoted]
    for row in every:
        known = scores(row)
        row.indices[MEAN] = Index(
            value=hierarchy_mean(known, columns),
            missing=[column.task for column in columns if column.id not in known],
        )


def _weights(board: Board, name: str) -> dict[str, tuple[str, float]]:
    columns = {task: column for task, column in board.indices[name].columns.items() if column}
    if name != MEAN:
        known = weights_of(name, {c.task: Dataset(c.capability, c.kind) for c in board.columns})
        return {columns[task]: weight for task, weight in known.items()}
    datasets = {column: board.column(column) for column in columns.values()}
    return {
        one: (
            datasets[one].metric,
            mean_over_hierarchy(
                (Dataset(c.capability, c.kind), float(c.id == one)) for c in datasets.values()
            ),
        )
        for one in datasets
    }


def _places(mean: _Mean, covariances: _Covariances) -> list[Places]:
    import numpy as np

    n = len(mean.rows)
    values, covariance = np.zeros(n), np.zeros((n, n))
    for column, (metric, weight) in mean.weights.items():
        of_column, of_pairs = covariances.of(column, metric, mean.rows)
        values += weight * of_column
        covariance += weight**2 * of_pairs
    return places(n, verdicts(values, covariance))


def verdicts(values: Array, covariance: Array) -> Verdicts:
    """Win, tie or loss of the first of each pair of values (rows,) with that covariance."""
    pairs = list(itertools.combinations(range(len(values)), 2))
    differences = [float(values[a] - values[b]) for a, b in pairs]
    ps = []
    for (a, b), difference in zip(pairs, differences, strict=True):
        variance = covariance[a, a] + covariance[b, b] - 2 * covariance[a, b]
        error = max(0.0, float(variance)) ** 0.5
        certain = 0.0 if abs(difference) > _SAME else 1.0
        z = abs(difference) / error if error > _SAME else 0.0
        ps.append(2 * NormalDist().cdf(-z) if error > _SAME else certain)
    return {
        pair: verdict(difference, p, True, LEVEL)
        for pair, difference, p in zip(pairs, differences, holm(ps), strict=True)
    }
