"""Rows of systems outside this package: their scored predictions enter the columns of runs.

A system has no template and no dev split. It stands in every column that asks the same questions
(task, version, test split, limit) with the same metric; where there is none, in one of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

from cpm_tune.common.sizes import counted
from cpm_tune.leaderboard.board import Board, Cell, Column, Cost, Row
from cpm_tune.leaderboard.hierarchy import Hierarchy
from cpm_tune.leaderboard.means import cell_of, points
from cpm_tune.leaderboard.results import System
from cpm_tune.schema.record import AnyRecord, SystemRecord

KIND = "outside system"


def questions(record: AnyRecord) -> Hashable:
    """What must be equal for a system to be in one table with a run."""
    spec, data = record.spec, record.spec.data
    asked = (spec.task, spec.task_version, data.test, data.limit, data.skip_bad_rows)
    return (*asked, record.ranks_by, record.test.signature)


def data_notes(record: AnyRecord) -> list[str]:
    """What keeps a record's data from being the official one."""
    data = record.spec.data
    notes = ["sample data, not comparable with real results"] if data.sample else []
    notes += [f"limited to {counted(data.limit, 'row')} a split"] if data.limit else []
    return notes + (["bad rows skipped"] if data.skip_bad_rows else [])


def add_systems(board: Board, systems: Sequence[System], hierarchy: Hierarchy) -> None:
    """Add a row for each system; its seeds are averaged."""
    named: dict[str, dict[Hashable, list[SystemRecord]]] = defaultdict(lambda: defaultdict(list))
    for system in systems:
        named[system.record.name][questions(system.record)].append(system.record)
    for name, asked in sorted(named.items()):
        cells: dict[str, Cell] = {}
        for records in asked.values():
            seeds = sorted(records, key=lambda record: record.spec.seed)
            notes = (note for r in seeds for note in (r.note, *r.warnings) if note)
            cell = cell_of(seeds, NO_COST, notes)
            cells |= dict.fromkeys(_columns(board, records[0], hierarchy), cell)
        board.rows.append(
            Row(
                id=f"{name} / {KIND}",
                backbone=name,
                backbone_sha256="",
                control="",
                delta=KIND,
                settings={},
                cells=cells,
                coverage=len({board.column(column).task for column in cells}),
                indices={},
                cost=NO_COST,
            )
        )
    board.n_runs += len(systems)
    board.columns.sort(key=lambda column: hierarchy.order(column.task))


NO_COST = Cost(
    n_trainable=None, bytes=None, samples_per_second=None, seconds=None, peak_memory_bytes=None
)


def _columns(board: Board, record: SystemRecord, hierarchy: Hierarchy) -> list[str]:
    spec = record.spec
    asked = (spec.task, spec.task_version, spec.data.test, record.test.signature)
    found = [
        column.id
        for column in board.columns
        if (column.task, column.version, column.test_sha256, column.signature) == asked
        and _cuts(column.notes) == _cuts(data_notes(record))
    ]
    if not found:
        board.columns.append(_own_column(board, record, hierarchy))
        found = [board.columns[-1].id]
    return found


def _cuts(notes: Sequence[str]) -> set[str]:
    """Those notes that say which rows of the split were taken."""
    return {note for note in notes if note.startswith(("limited", "bad rows"))}


def _own_column(board: Board, record: SystemRecord, hierarchy: Hierarchy) -> Column:
    spec, score = record.spec, record.test
    place, notes = hierarchy.dataset(spec.task), data_notes(record)
    number = 1 + sum(column.task == spec.task for column in board.columns)
    return Column(
        id=spec.task if number == 1 else f"{spec.task}#{number}",
        task=spec.task,
        version=spec.task_version,
        capability=place.capability,
        kind=place.kind,
        suites=list(place.suites),
        metric=record.ranks_by,
        signature=score.signature,
        higher_is_better=score.higher_is_better,
        unit="points" if points(score) == 100 else "own",
        template="-",
        template_version=0,
        dev_sha256=None,
        test_sha256=spec.data.test,
        n=score.n,
        official=record.comparable and not notes,
        notes=notes,
        apart=[f"test {(spec.data.test or '-')[:8]}, {KIND}s only"],
    )
