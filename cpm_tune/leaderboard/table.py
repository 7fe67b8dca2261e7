"""Groups the records of a results folder into rows that may be compared, and prints them.

Runs are in one table only if task, template, data, limit and metric are the same; what keeps tables
apart is in their headings. A row is one backbone, delta and recipe; its seeds are averaged.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpm_tune.common.texts import table as text_table
from cpm_tune.leaderboard.results import read_folder
from cpm_tune.leaderboard.systems import KIND, data_notes, questions
from cpm_tune.schema.record import RunRecord, ScoreRecord, SystemRecord


@dataclass(frozen=True)
class Row:
    """One line of a table; scores are fractions, `std` is over seeds (None for one seed)."""

    backbone: str
    delta: str
    settings: str
    n_seeds: int
    mean: float
    std: float | None
    low: float | None
    high: float | None
    n_trainable: int | None
    samples_per_second: float | None
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Table:
    """Rows that may be compared, best first."""

    task: str
    metric: str
    template: str
    heading: str
    notes: tuple[str, ...]
    majority: float | None
    rows: tuple[Row, ...]


def read_results(folder: Path) -> tuple[list[RunRecord], list[str]]:
    """Return the finished records below a folder, and a sentence for each file left out."""
    found = read_folder(folder)
    return [run.record for run in found.runs], list(found.left_out)


def make_tables(records: list[RunRecord], systems: Sequence[SystemRecord] = ()) -> list[Table]:
    """Group records into tables and rows. Outside systems stand in every table that asks their
    questions, or in one of their own."""
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[comparable_key(record)].append(record)
    asked: dict[Hashable, list[SystemRecord]] = defaultdict(list)
    for system in systems:
        asked[questions(system)].append(system)
    made = [_table(group, asked[questions(group[0])]) for _, group in sorted(groups.items())]
    seen = {questions(record) for record in records}
    return made + [
        _system_table(group) for key, group in asked.items() if group and key not in seen
    ]


def comparable_key(record: RunRecord) -> str:
    """Everything that must be equal for runs to be in one table."""
    spec = record.spec
    data = spec.data
    return json.dumps(
        [
            spec.task,
            spec.task_version,
            spec.template_sha256,
            record.ranks_by,
            record.test.signature,
            *(data.dev, data.test, data.limit, data.skip_bad_rows, data.sample),
        ]
    )


def row_key(record: RunRecord) -> Hashable:
    """Everything that decides the result, but the seed."""
    return tuple(
        json.dumps(value, sort_keys=True) if isinstance(value, dict) else value
        for name, value in record.spec
        if name != "seed"
    )


def _table(records: list[RunRecord], systems: Sequence[SystemRecord]) -> Table:
    spec = records[0].spec
    rows: dict[Hashable, list[RunRecord]] = defaultdict(list)
    for record in records:
        rows[row_key(record)].append(record)
    better = -1 if records[0].test.higher_is_better else 1
    differing = _differing(records)
    made = [_row(seeds, differing) for seeds in rows.values()] + _system_rows(systems)
    made.sort(key=lambda row: better * row.mean)
    test = records[0].data["test"]
    heading = f"test {spec.data.test[:8] if spec.data.test else '-'}, n={test.n}"
    majority = records[0].controls.get("majority")
    return Table(
        task=f"{spec.task} v{spec.task_version}",
        metric=records[0].ranks_by,
        template=f"{spec.template} v{spec.template_version}",
        heading=heading,
        notes=tuple(data_notes(records[0])),
        majority=majority.value if majority else None,
        rows=tuple(made),
    )


def _system_table(records: Sequence[SystemRecord]) -> Table:
    first = records[0]
    better = -1 if first.test.higher_is_better else 1
    return Table(
        task=f"{first.spec.task} v{first.spec.task_version}",
        metric=first.ranks_by,
        template="-",
        heading=f"test {(first.spec.data.test or '-')[:8]}, n={first.test.n}",
        notes=tuple(data_notes(first)),
        majority=None,
        rows=tuple(sorted(_system_rows(records), key=lambda row: better * row.mean)),
    )


def _system_rows(records: Sequence[SystemRecord]) -> list[Row]:
    named: dict[str, list[SystemRecord]] = defaultdict(list)
    for record in records:
        named[record.name].append(record)
    return [
        Row(
            backbone=name,
            delta=f"({KIND})",
            settings="-",
            **_spread([record.test for record in seeds]),
            n_trainable=None,
            samples_per_second=None,
            peak_memory_bytes=None,
        )
        for name, seeds in named.items()
    ]


def _spread(scores: Sequence[ScoreRecord]) -> dict[str, Any]:
    """Mean and spread over seeds; one seed's own interval."""
    values = [score.value for score in scores]
    alone = len(values) == 1
    return {
        "n_seeds": len(values),
        "mean": statistics.fmean(values),
        "std": None if alone else statistics.stdev(values),
        "low": scores[0].low if alone else None,
        "high": scores[0].high if alone else None,
    }


def _settings(record: RunRecord) -> dict[str, str]:
    """Everything but seed and data that may differ between rows, flat."""
    spec = record.spec
    parts = {"delta": spec.delta, "encode": spec.encoding.model_dump()}
    if spec.recipe is not None:
        parts["train"] = spec.recipe.model_dump()
    if spec.decoding is not None:
        parts["decode"] = spec.decoding.model_dump()
    flat = {f"{part}.{k}": v for part, values in parts.items() for k, v in values.items()}
    shown = {
        k: ",".join(map(str, v)) if isinstance(v, list | tuple) else f"{v}" for k, v in flat.items()
    }
    return {**shown, "precision": spec.weights, "train data": (spec.data.train or "")[:8]}


def _differing(records: list[RunRecord]) -> set[str]:
    """Settings that are not the same in all trained rows of a table, and the two best known.

    A delta's own settings count where rows of one delta differ in them: its name tells the rest.
    """
    all_of = [(r.delta.name, _settings(r)) for r in records if r.spec.recipe is not None]
    apart = {"train.lr", "train.batch_size"}
    for key in {key for _, settings in all_of for key in settings}:
        said: dict[str, set[str | None]] = defaultdict(set)
        for name, settings in all_of:
            said[name if key.startswith("delta.") else ""].add(settings.get(key))
        if any(len(values) > 1 for values in said.values()):
            apart.add(key)
    return apart - {"delta.delta_type"}


def _row(seeds: list[RunRecord], differing: set[str]) -> Row:
    first = seeds[0]
    speeds = [r.training.samples_per_second for r in seeds if r.training]
    memory = [r.environment.peak_memory_bytes for r in seeds if r.environment]
    control = first.spec.backbone.init == "random"
    untrained = " (random weights)" if not first.backbone.trained else ""
    named = {k: v for k, v in _settings(first).items() if k in differing}
    settings = " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in named.items())
    return Row(
        backbone=first.backbone.name + (" (random control)" if control else untrained),
        delta=first.delta.name,
        settings=settings if first.spec.recipe is not None else "-",
        **_spread([record.test for record in seeds]),
        n_trainable=first.delta.n_trainable,
        samples_per_second=statistics.fmean(speeds) if speeds else None,
        peak_memory_bytes=max(memory) if memory else None,
    )


HEADER = (
    "backbone",
    "delta",
    "settings",
    "seeds",
    "score",
    "± / 95%",
    "trained",
    "samples/s",
    "peak GiB",
)


def _cells(row: Row) -> tuple[str, ...]:
    spread = f"± {row.std:.4f}" if row.std is not None else f"[{row.low:.4f}, {row.high:.4f}]"
    return (
        row.backbone,
        row.delta,
        row.settings,
        str(row.n_seeds),
        f"{row.mean:.4f}",
        spread,
        "-" if row.n_trainable is None else f"{row.n_trainable:,}",
        "-" if row.samples_per_second is None else f"{row.samples_per_second:.1f}",
        "-" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 2**30:.2f}",
    )


def as_text(table: Table) -> str:
    """One table for the terminal: heading, notes, rows."""
    title = f"{table.task}: {table.metric}, template {table.template}, {table.heading}"
    notes = [*table.notes]
    if table.majority is not None:
        notes.append(f"majority class {table.majority:.4f}")
    rows = [_cells(row) for row in table.rows]
    return "\n".join([title, *(f"  {note}" for note in notes), text_table(HEADER, rows)])
