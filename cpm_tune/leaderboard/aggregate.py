"""From the runs of a results folder to a Board: columns, rows, cells, indices.

A column holds runs that may be compared (table.comparable_key). A row is a backbone and a delta;
where a column has runs of the two under more than one setting, the settings that differ there make
rows of their own. Seeds are averaged only where everything else is equal (table.row_key).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cpm_tune.leaderboard.board import Board, Cell, Column, Cost, Row
from cpm_tune.leaderboard.costs import cell_cost, row_cost
from cpm_tune.leaderboard.hierarchy import Hierarchy
from cpm_tune.leaderboard.means import cell_of, mean, points
from cpm_tune.leaderboard.quoted import add_indices, add_quoted
from cpm_tune.leaderboard.results import Found, Results, without_collection
from cpm_tune.leaderboard.systems import add_systems, data_notes
from cpm_tune.leaderboard.table import comparable_key, row_key
from cpm_tune.schema.record import RunRecord

_PLACE = ("data", "task", "task_version", "template_sha256", "seed", "schema_version")


@dataclass(frozen=True)
class Group:
    """The seeds of one setting in one column."""

    column: str
    family: tuple[str, str, str]
    settings: Mapping[str, str]
    runs: tuple[Found, ...]
    repeats: tuple[Found, ...]


def make_board(results: Results, include: tuple[Path, ...] = (), published: bool = False) -> Board:
    """Aggregate runs; `published` adds the quoted rows and the columns that only they have."""
    with without_collection():
        return _make_board(results, Hierarchy(include), published)


def _make_board(results: Results, hierarchy: Hierarchy, published: bool) -> Board:
    columns, groups = _columns_and_groups(results, hierarchy)
    rows = _rows(groups)
    board = Board(
        columns=columns,
        rows=rows,
        n_runs=len(results.runs),
        left_out=[*results.left_out, *hierarchy.notes],
    )
    add_systems(board, results.systems, hierarchy)
    if published:
        add_quoted(board, hierarchy)
    add_indices(board, hierarchy)
    board.rows.sort(key=lambda row: _rank(row, board.columns))
    return board


def _rank(row: Row, columns: Sequence[Column]) -> tuple[float, float, str]:
    """Most datasets first, then the best mean score, then by name."""
    said = [
        row.cells[c.id].mean if c.higher_is_better else -row.cells[c.id].mean
        for c in columns
        if c.id in row.cells
    ]
    return -len(said), -mean(said), row.id


def _columns_and_groups(results: Results, hierarchy: Hierarchy) -> tuple[list[Column], list[Group]]:
    by_column: dict[str, list[Found]] = defaultdict(list)
    for found in results.runs:
        by_column[comparable_key(found.record)].append(found)
    repeats: dict[Hashable, list[Found]] = defaultdict(list)
    for found in results.repeats:
        repeats[row_key(found.record)].append(found)
    names = _delta_names(found.record for found in results.runs)
    made = [(_column(runs, hierarchy), runs) for runs in by_column.values()]
    made.sort(
        key=lambda pair: (*hierarchy.order(pair[0].task), not pair[0].official, -len(pair[1]))
    )
    columns, groups = [], []
    counted: dict[str, int] = defaultdict(int)
    for column, runs in made:
        counted[column.task] += 1
        number = counted[column.task]
        column = column.model_copy(
            update={"id": column.task if number == 1 else f"{column.task}#{number}"}
        )
        columns.append(column)
        groups += _groups(column.id, runs, repeats, names)
    _say_what_keeps_apart(columns)
    return columns, groups


def _delta_names(records: Iterable[RunRecord]) -> dict[str, str]:
    """One name for equal delta settings: two presets may say the same."""
    names: dict[str, str] = {}
    for record in records:
        key = json.dumps(record.spec.delta, sort_keys=True)
        names[key] = min(names.get(key, record.delta.name), record.delta.name)
    return names


def _groups(
    column: str,
    runs: Sequence[Found],
    repeats: Mapping[Hashable, Sequence[Found]],
    names: Mapping[str, str],
) -> list[Group]:
    same: dict[Hashable, list[Found]] = defaultdict(list)
    for found in runs:
        same[row_key(found.record)].append(found)
    made = []
    for key, seeds in same.items():
        record = seeds[0].record
        spec = record.spec
        delta = names[json.dumps(spec.delta, sort_keys=True)]
        made.append(
            Group(
                column,
                (spec.backbone.sha256, spec.backbone.init, delta),
                settings_of(record),
                tuple(sorted(seeds, key=lambda found: found.record.spec.seed)),
                tuple(repeats.get(key, ())),
            )
        )
    return made


def settings_of(record: RunRecord) -> dict[str, str]:
    """Everything of the specification that may differ within a column, flat; but the seed."""
    said = record.spec.model_dump(mode="json")
    flat = {"data.train": (record.spec.data.train or "none")[:8]}
    for part, value in said.items():
        if part in _PLACE or part == "backbone":
            continue
        short = {"recipe": "train", "encoding": "encode", "decoding": "decode"}.get(part, part)
        if isinstance(value, dict):
            flat |= {f"{short}.{key}": _text(v) for key, v in value.items()}
        elif value is not None:
            flat[short] = _text(value)
    return flat


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else f"{value}"


def _rows(groups: Sequence[Group]) -> list[Row]:
    families: dict[tuple[str, str, str], list[Group]] = defaultdict(list)
    for group in groups:
        families[group.family].append(group)
    names = _backbone_names(groups)
    rows = []
    for family, members in families.items():
        telling = _telling(members)
        apart: dict[tuple[tuple[str, str], ...], list[Group]] = defaultdict(list)
        for group in members:
            key = tuple((k, group.settings[k]) for k in telling if k in group.settings)
            apart[key].append(group)
        rows += [_row(family, dict(key), cells, names) for key, cells in apart.items()]
    return rows


def _telling(groups: Sequence[Group]) -> list[str]:
    """The settings that differ between groups of the same column."""
    by_column: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for group in groups:
        by_column[group.column].append(group.settings)
    telling: set[str] = set()
    for settings in by_column.values():
        if len(settings) > 1:
            keys = {key for one in settings for key in one}
            telling |= {k for k in keys if len({one.get(k) for one in settings}) > 1}
    return sorted(telling)


def _backbone_names(groups: Sequence[Group]) -> dict[str, str]:
    """A name for each fingerprint; equal names of different backbones carry their fingerprint."""
    names: dict[str, str] = {}
    for group in groups:
        for found in group.runs:
            sha, name = found.record.spec.backbone.sha256, found.record.backbone.name
            names[sha] = min(names.get(sha, name), name)
    used = list(names.values())
    return {sha: f"{n} ({sha[:6]})" if used.count(n) > 1 else n for sha, n in names.items()}


def _row(
    family: tuple[str, str, str],
    settings: dict[str, str],
    groups: Sequence[Group],
    names: Mapping[str, str],
) -> Row:
    sha, init, delta = family
    first = groups[0].runs[0].record
    control = "random control" if init == "random" else ""
    if not control and not first.backbone.trained:
        control = "random weights"
    said = [names[sha], control, delta, *(f"{k}={v}" for k, v in settings.items())]
    cells = {group.column: _cell(group) for group in groups}
    return Row(
        id=" / ".join(filter(None, said)),
        backbone=names[sha],
        backbone_sha256=sha,
        control=control,
        delta=delta,
        settings=settings,
        cells=cells,
        coverage=len({column.partition("#")[0] for column in cells}),
        indices={},
        cost=row_cost(cells.values(), groups_cost(groups)),
    )


def groups_cost(groups: Sequence[Group]) -> Cost:
    """The cost over all runs of several groups."""
    runs = [found.record for group in groups for found in group.runs]
    return cell_cost(runs, [found.record for group in groups for found in group.repeats])


def _cell(group: Group) -> Cell:
    records = [found.record for found in group.runs]
    notes = (note for r in records for note in (*_about_splits(r, ("train ",)), *r.warnings))
    cost = cell_cost(records, [found.record for found in group.repeats])
    return cell_of(records, cost, notes, group.settings)


def _about_splits(record: RunRecord, splits: tuple[str, ...]) -> list[str]:
    """What a record's note says of splits that have not their official size."""
    parts = record.note.split("; ")
    return [part for part in parts if "officially" in part and part.startswith(splits)]


def _column(runs: Sequence[Found], hierarchy: Hierarchy) -> Column:
    record = runs[0].record
    spec, data = record.spec, record.spec.data
    place = hierarchy.dataset(spec.task)
    notes = data_notes(record)
    notes += sorted({part for f in runs for part in _about_splits(f.record, ("dev ", "test "))})
    majority = record.controls.get("majority")
    scale = points(record.test)
    return Column(
        id="",
        task=spec.task,
        version=spec.task_version,
        capability=place.capability,
        kind=place.kind,
        suites=list(place.suites),
        metric=record.ranks_by,
        signature=record.test.signature,
        higher_is_better=record.test.higher_is_better,
        unit="points" if scale == 100 else "own",
        template=spec.template,
        template_version=spec.template_version,
        dev_sha256=data.dev,
        test_sha256=data.test,
        n=record.test.n,
        official=not notes,
        notes=notes,
        majority=scale * majority.value if majority else None,
    )


def _traits(column: Column) -> list[str]:
    """What keeps columns of a dataset apart, in words; in the same order for every column."""
    return [
        f"task version {column.version}",
        f"template {column.template} v{column.template_version}",
        f"dev {(column.dev_sha256 or '-')[:8]}, test {(column.test_sha256 or '-')[:8]}",
        "; ".join(column.notes) or "all rows of the given files",
        f"metric {column.signature}",
    ]


def _say_what_keeps_apart(columns: Sequence[Column]) -> None:
    for column in columns:
        mine = _traits(column)
        others = [_traits(c) for c in columns if c.task == column.task and c is not column]
        column.apart = [
            trait for i, trait in enumerate(mine) if any(other[i] != trait for other in others)
        ]
