"""The places that rows of a column may have: paired tests of all pairs, Holm's correction.

A row's place is at best 1 + the number of rows that are significantly better, and at worst n - the
number of those that are significantly worse (as in Mogstad et al., Review of Economic Studies 2024,
in its pairwise form). Rows that no test separates share places: none of them is the best.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from cpm_tune.common.progress import tracked
from cpm_tune.common.sizes import counted
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.board import Board, Cell, Column, Places
from cpm_tune.leaderboard.compare import LEVEL
from cpm_tune.leaderboard.results import AnyStored, Results
from cpm_tune.leaderboard.statistics import compare, holm, verdict
from cpm_tune.metrics import get_metric
from cpm_tune.schema.record import AnyRecord
from cpm_tune.systems.predictions import (
    FOREIGN,
    Predictions,
    from_predictions,
    recorded_predictions,
)

Verdicts = Mapping[tuple[int, int], str]
Folders = Mapping[str, tuple[Path, AnyRecord]]


def add_places(board: Board, results: Results) -> list[str]:
    """Fill the places of every cell, column by column. Returns one sentence per column or run that
    cannot be tested."""
    folders, notes = folders_of(results), list[str]()
    for column in tracked(board.columns, "testing columns", len(board.columns)):
        cells = [row.cells[column.id] for row in board.rows if column.id in row.cells]
        whole = [cell for cell in cells if not cell.missing_folds]
        if partial := len(cells) - len(whole):
            notes.append(
                f"{column.id}: no places for {counted(partial, 'row')} on some folds alone"
            )
        cells = whole
        if len(cells) > 1:
            notes += _fill(column, cells, folders)
    return notes


def folders_of(results: Results) -> Folders:
    """Where the predictions of each run and system are."""
    every: list[AnyStored] = [*results.runs, *results.systems]
    return {stored.record.run_id: (stored.folder, stored.record) for stored in every}


def read_cells(cells: Sequence[Cell], folders: Folders) -> list[list[Predictions]]:
    """The predictions of each cell's seeds; raise UserError unless all are of the same examples."""
    seeds = [[_read(*folders[run.run_id]) for run in cell.runs] for cell in cells]
    first = seeds[0][0]
    if any(_asked(one) != _asked(first) for each in seeds for one in each):
        raise UserError("its runs have different examples or answers")
    return seeds


def _fill(column: Column, cells: Sequence[Cell], folders: Folders) -> list[str]:
    try:
        metric = get_metric(column.metric)
        if not from_predictions(column.metric):
            return [f"{column.id}: no places, {column.metric} is no value of predictions"]
        seeds = read_cells(cells, folders)
        first = seeds[0][0]
        answers = [[list(one.predictions) for one in each] for each in seeds]
        pairs = list(itertools.combinations(range(len(cells)), 2))
        results = [
            compare(metric, answers[a], answers[b], first.targets, with_interval=False)
            for a, b in pairs
        ]
    except UserError as error:
        return [f"{column.id}: no places, {error}"]
    except FOREIGN as error:
        return [f"{column.id}: no places, {column.metric} does not take its predictions ({error})"]
    better = metric.higher_is_better
    adjusted = holm([result.p for result in results])
    verdicts = {
        pair: verdict(result.difference, p, better, LEVEL)
        for pair, result, p in zip(pairs, results, adjusted, strict=True)
    }
    for cell, place in zip(cells, places(len(cells), verdicts), strict=True):
        cell.places = place
    return []


def _read(folder: Path, record: AnyRecord) -> Predictions:
    return recorded_predictions(folder, record, "test")


def _asked(one: Predictions) -> tuple[object, ...]:
    return one.ids, one.targets


def places(n: int, verdicts: Verdicts) -> list[Places]:
    """The places of n rows from the verdicts (win, tie or loss of the first) of their pairs."""
    better, worse = [0] * n, [0] * n
    for (a, b), outcome in verdicts.items():
        if outcome == "tie":
            continue
        winner, loser = (a, b) if outcome == "win" else (b, a)
        better[loser] += 1
        worse[winner] += 1
    return [Places(first=1 + better[i], last=n - worse[i], of=n) for i in range(n)]
