"""Rows of outside systems: their scored predictions enter the columns of runs.

An outside system has no template and no dev split. It is in every column that asks the same
questions (task, version, test split, limit) with the same metric; if there is none, in one of its
own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

from cpm_tune.leaderboard.board import Board, Cell, Column, Cost, MeasuredRow
from cpm_tune.leaderboard.columns import column_of, data_notes, next_id, questions
from cpm_tune.leaderboard.hierarchy import Hierarchy
from cpm_tune.leaderboard.means import cell_of
from cpm_tune.leaderboard.results import StoredRecord
from cpm_tune.schema.record import SystemRecord

KIND = "outside system"


def add_outside_systems(
    board: Board, systems: Sequence[StoredRecord[SystemRecord]], hierarchy: Hierarchy
) -> None:
    """Add one row per system; its seeds are averaged."""
    named: dict[str, dict[Hashable, list[SystemRecord]]] = defaultdict(lambda: defaultdict(list))
    for system in systems:
        named[system.record.name][questions(system.record)].append(system.record)
    for name, asked in sorted(named.items()):
        cells: dict[str, Cell] = {}
        for records in asked.values():
            seeds = sorted(records, key=lambda record: record.spec.seed)
            notes = (note for r in seeds for note in (r.note, *r.warnings) if note)
            cell = cell_of(seeds, Cost(), notes)
            cells |= {column.id: cell for column in _columns(board, records[0], hierarchy)}
        board.rows.append(
            MeasuredRow(
                id=row_id(name),
                backbone=name,
                backbone_sha256="",
                control="",
                delta=KIND,
                settings={},
                cells=cells,
                coverage=len({board.column(column).task for column in cells}),
                cost=Cost(),
            )
        )
    board.n_runs += len(systems)
    board.columns.sort(key=lambda column: hierarchy.order(column.task))


def row_id(name: str) -> str:
    """The id of a system's row."""
    return f"{name} / {KIND}"


def _columns(board: Board, record: SystemRecord, hierarchy: Hierarchy) -> list[Column]:
    spec = record.spec
    asked = (spec.task, spec.task_version, spec.data.test, record.test.signature)
    columns = [
        column
        for column in board.columns
        if (column.task, column.version, column.test_sha256, column.signature) == asked
        and _cuts(column.notes) == _cuts(data_notes(record))
    ]
    if not columns:
        column = column_of(next_id(board.columns, spec.task), [record], hierarchy)
        column.apart = [f"test {(spec.data.test or '-')[:8]}, {KIND}s only"]
        board.columns.append(column)
        columns = [column]
    return columns


def _cuts(notes: Sequence[str]) -> set[str]:
    """Those notes that say which rows of the split were taken."""
    return {note for note in notes if note.startswith(("limited", "bad rows"))}
