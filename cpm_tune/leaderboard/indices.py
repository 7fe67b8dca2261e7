"""CUGE's two indices. The report states one rule, the printed scores follow another; each has its
name here. An index is blank if a score is missing."""

from __future__ import annotations

from collections.abc import Mapping

from cpm_tune.leaderboard.board import Board, Column, Index, IndexRule, MeasuredRow
from cpm_tune.leaderboard.hierarchy import Dataset, Hierarchy, mean_over_hierarchy
from cpm_tune.leaderboard.published import baseline, read_published

BASELINE = "mT5-small"
LITE = "cuge-lite"

NORMALISED_MEAN = "normalised-mean"
RATIO_OF_SUMS = "ratio-of-sums"
RULES = {
    NORMALISED_MEAN: (
        "CUGE lite, normalised mean",
        "100 x score / baseline for each dataset, averaged over datasets to kinds, over kinds to "
        "capabilities, over capabilities: the rule that the CUGE report states.",
    ),
    RATIO_OF_SUMS: (
        "CUGE lite, ratio of sums",
        "100 x sum of scores / sum of baseline scores: the rule that the scores printed on the "
        "CUGE board follow.",
    ),
}


def normalised_mean(
    scores: Mapping[str, float], baseline: Mapping[str, float], places: Mapping[str, Dataset]
) -> float | None:
    """The report's index, over the datasets of `baseline`; None if a score is missing.

    `scores` and `baseline` map dataset to score in the same unit, `places` every dataset to its
    place.
    """
    if missing(scores, baseline):
        return None
    return mean_over_hierarchy(
        (places[dataset], 100 * scores[dataset] / base) for dataset, base in baseline.items()
    )


def ratio_of_sums(scores: Mapping[str, float], baseline: Mapping[str, float]) -> float | None:
    """The board's index, over the datasets of `baseline`; None if a score is missing."""
    if missing(scores, baseline):
        return None
    return 100 * sum(scores[dataset] for dataset in baseline) / sum(baseline.values())


def missing(scores: Mapping[str, float], baseline: Mapping[str, float]) -> list[str]:
    """The datasets of `baseline` without a score."""
    return [dataset for dataset in baseline if dataset not in scores]


def weights_of(name: str, places: Mapping[str, Dataset]) -> dict[str, tuple[str, float]]:
    """Of an index: by dataset, the metric whose score counts, and its weight. `places` has every
    dataset that is known."""
    base = baseline(read_published(), BASELINE)
    printed = {task: score.value for task, score in base.items()}
    if name == RATIO_OF_SUMS:
        total = sum(printed.values())
        return {task: (score.metric, 100 / total) for task, score in base.items()}
    return {
        task: (
            score.metric,
            mean_over_hierarchy(
                (places[other], 100 / printed[task] if other == task else 0.0) for other in base
            ),
        )
        for task, score in base.items()
    }


def add_indices(board: Board, hierarchy: Hierarchy) -> None:
    """Give every row both indices over CUGE lite, against the published baseline.

    A row's score is that of the metric nearest to the published one, in the official column.
    """
    base = baseline(read_published(), BASELINE)
    columns = {task: c for task, c in board.official_columns().items() if task in base}
    weights = {task: printed.value for task, printed in base.items()}
    places = {task: hierarchy.dataset(task) for task in base}

    def indices(scores: Mapping[str, float]) -> dict[str, Index]:
        absent = missing(scores, weights)
        values = normalised_mean(scores, weights, places), ratio_of_sums(scores, weights)
        return {
            name: Index(value=value, missing=absent)
            for name, value in zip((NORMALISED_MEAN, RATIO_OF_SUMS), values, strict=True)
        }

    for name, (title, rule) in RULES.items():
        board.indices[name] = IndexRule(
            title=title,
            rule=rule,
            columns={task: columns[task].id if task in columns else None for task in base},
            baseline=f"{BASELINE} ({LITE} board, quoted)",
        )
    for row in board.rows:
        row.indices = indices(
            {
                task: score
                for task, column in columns.items()
                if (score := _measured(row, column, base[task].metric)) is not None
            }
        )
    for published in board.quoted:
        scores = {board.column(name).task: cell.value for name, cell in published.cells.items()}
        published.indices = indices({task: scores[task] for task in base if task in scores})


def _measured(row: MeasuredRow, column: Column, metric: str) -> float | None:
    """A row's mean in a column, of that metric."""
    cell = row.cells.get(column.id)
    if cell is None:
        return None
    return cell.mean if column.metric == metric else cell.others.get(metric)
