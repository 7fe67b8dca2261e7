"""From the runs of a results folder to a Board: columns, rows, cells, indices.

A column has runs that may be compared (comparable_key). A row is a backbone and a delta; if a
column has runs of the two under several settings, those that differ there make rows of their own.
Only runs that differ in nothing but the seed are averaged (_same_but_seed).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpm_tune.leaderboard.board import Board, Cell, Column, MeasuredRow
from cpm_tune.leaderboard.columns import (
    column_of,
    comparable_key,
    next_id,
    split_notes,
    state_what_differs,
)
from cpm_tune.leaderboard.costs import cell_cost, row_cost
from cpm_tune.leaderboard.forgetting import cell_forgetting, choose_texts
from cpm_tune.leaderboard.hierarchy import Hierarchy
from cpm_tune.leaderboard.indices import add_indices
from cpm_tune.leaderboard.means import cell_of, judge, mean, note_folds
from cpm_tune.leaderboard.outside_systems import add_outside_systems
from cpm_tune.leaderboard.published import add_published
from cpm_tune.leaderboard.results import Results, StoredRecord, without_collection
from cpm_tune.leaderboard.settings import differing_settings, settings_of
from cpm_tune.schema.record import RunRecord

_SEED: dict[str, Any] = {"seed": True, "delta": True}
_SEED_AND_FOLD = {**_SEED, "data": {"train", "dev", "fold"}}
Runs = Sequence[StoredRecord[RunRecord]]
Same = tuple[str, str]  # what is the same in runs that differ in seed and fold alone


@dataclass(frozen=True)
class SeedGroup:
    """The seeds of one setting in one column. `family`: backbone, its weights, delta."""

    column: str
    family: tuple[str, str, str]
    settings: Mapping[str, str]
    runs: Runs
    repeats: Runs


def make_board(results: Results, include: tuple[Path, ...] = (), published: bool = False) -> Board:
    """Aggregate runs; `published` adds published results and the columns that only they have."""
    with without_collection():
        return _make_board(results, Hierarchy(include), published)


def _make_board(results: Results, hierarchy: Hierarchy, published: bool) -> Board:
    columns, groups = _columns_and_groups(results, hierarchy)
    rows = _rows(groups, hierarchy)
    records = {run.record.run_id: run.record for run in results.runs}
    for column in columns:
        note_folds([row.cells[column.id] for row in rows if column.id in row.cells], records)
    choose_texts(columns, rows)
    board = Board(
        columns=columns,
        rows=rows,
        n_runs=len(results.runs),
        left_out=[*results.left_out, *hierarchy.notes],
    )
    add_outside_systems(board, results.systems, hierarchy)
    for column in columns:
        judge(column, [row.cells[column.id] for row in board.rows if column.id in row.cells])
    if published:
        add_published(board, hierarchy)
    add_indices(board, hierarchy)
    board.rows.sort(key=lambda row: _rank(row, board.columns))
    return board


def _rank(row: MeasuredRow, columns: Sequence[Column]) -> tuple[float, float, str]:
    """Most datasets first, then the best mean score, then by name."""
    means = [
        row.cells[c.id].mean if c.higher_is_better else -row.cells[c.id].mean
        for c in columns
        if c.id in row.cells
    ]
    return -len(means), -mean(means), row.id


def _same_but_seed(record: RunRecord) -> Same:
    """Everything that decides the result, but the seed and the fold: the delta, and the rest."""
    # As JSON: for 50,000 records the parts would be hashed and compared one by one.
    spec, left_out = record.spec, _SEED if record.spec.data.fold is None else _SEED_AND_FOLD
    return json.dumps(spec.delta, sort_keys=True), spec.model_dump_json(exclude=left_out)


def _columns_and_groups(
    results: Results, hierarchy: Hierarchy
) -> tuple[list[Column], list[SeedGroup]]:
    comparable: dict[Hashable, list[tuple[Same, StoredRecord[RunRecord]]]] = defaultdict(list)
    names: dict[str, str] = {}  # one for equal delta settings: two presets may have the same
    for run in results.runs:
        same = _same_but_seed(run.record)
        comparable[comparable_key(run.record)].append((same, run))
        delta, name = same[0], run.record.delta.name
        names[delta] = min(names.get(delta, name), name)
    repeats: dict[Same, list[StoredRecord[RunRecord]]] = defaultdict(list)
    for run in results.repeats:
        repeats[_same_but_seed(run.record)].append(run)
    made = [
        (column_of("", [run.record for _, run in runs], hierarchy), runs)
        for runs in comparable.values()
    ]
    made.sort(
        key=lambda pair: (*hierarchy.order(pair[0].task), not pair[0].official, -len(pair[1]))
    )
    columns: list[Column] = []
    groups: list[SeedGroup] = []
    for column, runs in made:
        column.id = next_id(columns, column.task)
        columns.append(column)
        groups += _groups(column.id, runs, repeats, names)
    state_what_differs(columns)
    return columns, groups


def _groups(
    column: str,
    runs: Iterable[tuple[Same, StoredRecord[RunRecord]]],
    repeats: Mapping[Same, Runs],
    names: Mapping[str, str],
) -> list[SeedGroup]:
    by_setting: dict[Same, list[StoredRecord[RunRecord]]] = defaultdict(list)
    for same, run in runs:
        by_setting[same].append(run)
    groups = []
    for same, seeds in by_setting.items():
        spec = seeds[0].record.spec
        groups.append(
            SeedGroup(
                column,
                (spec.backbone.sha256, spec.backbone.init, names[same[0]]),
                settings_of(spec),
                sorted(seeds, key=lambda run: run.record.spec.seed),
                repeats.get(same, ()),
            )
        )
    return groups


def _rows(groups: Sequence[SeedGroup], hierarchy: Hierarchy) -> list[MeasuredRow]:
    families: dict[tuple[str, str, str], list[SeedGroup]] = defaultdict(list)
    for group in groups:
        families[group.family].append(group)
    names = _backbone_names(groups)
    rows = []
    for family, members in families.items():
        telling = _differing(members)
        by_settings: dict[tuple[tuple[str, str], ...], list[SeedGroup]] = defaultdict(list)
        for group in members:
            key = tuple((k, group.settings[k]) for k in telling if k in group.settings)
            by_settings[key].append(group)
        rows += [
            _row(family, dict(key), cells, names, hierarchy) for key, cells in by_settings.items()
        ]
    return rows


def _differing(groups: Sequence[SeedGroup]) -> list[str]:
    """The settings that differ between groups of the same column."""
    by_column: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for group in groups:
        by_column[group.column].append(group.settings)
    return sorted(set().union(*map(differing_settings, by_column.values())))


def _backbone_names(groups: Sequence[SeedGroup]) -> dict[str, str]:
    """A name for each fingerprint; equal names of different backbones carry their fingerprint."""
    names: dict[str, str] = {}
    for group in groups:
        for run in group.runs:
            sha, name = run.record.spec.backbone.sha256, run.record.backbone.name
            names[sha] = min(names.get(sha, name), name)
    used = list(names.values())
    return {sha: f"{n} ({sha[:6]})" if used.count(n) > 1 else n for sha, n in names.items()}


def _row(
    family: tuple[str, str, str],
    settings: dict[str, str],
    groups: Sequence[SeedGroup],
    names: Mapping[str, str],
    hierarchy: Hierarchy,
) -> MeasuredRow:
    sha, init, delta = family
    control = "random control" if init == "random" else ""
    if not control and not groups[0].runs[0].record.backbone.trained:
        control = "random weights"
    parts = [names[sha], control, delta, *(f"{k}={v}" for k, v in settings.items())]
    cells = {group.column: _cell(group, hierarchy) for group in groups}
    runs = [run.record for group in groups for run in group.runs]
    repeats = [run.record for group in groups for run in group.repeats]
    return MeasuredRow(
        id=" / ".join(filter(None, parts)),
        backbone=names[sha],
        backbone_sha256=sha,
        control=control,
        delta=delta,
        settings=settings,
        cells=cells,
        coverage=len({column.partition("#")[0] for column in cells}),
        cost=row_cost(cells.values(), cell_cost(runs, repeats)),
    )


def _cell(group: SeedGroup, hierarchy: Hierarchy) -> Cell:
    records = [run.record for run in group.runs]
    notes = [n for r in records for n in (*split_notes(r, ("train ",), hierarchy), *r.warnings)]
    notes += [
        f"not above the shortcut {unbeaten[0]} by more than its interval"
        for record in records
        if (unbeaten := record.unbeaten_shortcut) is not None
    ]
    cost = cell_cost(records, [run.record for run in group.repeats])
    cell = cell_of(records, cost, notes, group.settings)
    cell.forgetting = cell_forgetting(records)
    return cell
