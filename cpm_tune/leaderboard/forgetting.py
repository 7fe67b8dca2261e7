"""Forgetting on the board: the records' losses on plain texts, as means over sources and seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from cpm_tune.leaderboard.board import Cell, Column, Forgetting, MeasuredRow
from cpm_tune.leaderboard.means import mean
from cpm_tune.schema.record import RunRecord

DIFFERENT = "forgetting was measured on different texts"
SCALE = "delta_scale"  # the setting that tells runs of `scale` apart


def cell_forgetting(records: Sequence[RunRecord]) -> Forgetting | None:
    """What equal runs forgot; None unless all were measured on the same texts."""
    texts = {_fingerprint(record) for record in records}
    if len(texts) > 1 or not records[0].forgetting:
        return None
    sources = {
        name: mean(record.forgetting[name].difference for record in records)
        for name in records[0].forgetting
    }
    return Forgetting(mean=mean(sources.values()), sources=sources, texts=texts.pop())


def _fingerprint(record: RunRecord) -> str:
    parts = sorted(f"{name} {each.sha256}" for name, each in record.forgetting.items())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def row_forgetting(cells: Iterable[Cell]) -> float | None:
    """The mean over a row's cells; None unless all were measured, on the same texts."""
    parts = [cell.forgetting for cell in cells]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or len({part.texts for part in known}) != 1:
        return None
    return mean(part.mean for part in known)


def note_texts(columns: Sequence[Column], rows: Sequence[MeasuredRow]) -> None:
    """Note in every column whose cells were measured on different texts."""
    for column in columns:
        cells = [row.cells[column.id] for row in rows if column.id in row.cells]
        if len({cell.forgetting.texts for cell in cells if cell.forgetting}) > 1:
            column.notes.append(DIFFERENT)


def measured(rows: Iterable[MeasuredRow]) -> bool:
    """Whether any row has this number."""
    return any(row.forgetting is not None for row in rows)


def shown(value: float | None, missing: str = "") -> str:
    """Nats per character with their sign."""
    return missing if value is None else f"{value:+.4f}"


def scaled_alike(rows: Iterable[MeasuredRow]) -> list[list[MeasuredRow]]:
    """Rows that differ in the factor of their delta alone, by that factor, the whole delta last;
    groups of two or more."""
    groups: dict[tuple[object, ...], list[MeasuredRow]] = {}
    for row in rows:
        others = tuple(sorted((k, v) for k, v in row.settings.items() if k != SCALE))
        groups.setdefault((row.backbone_sha256, row.control, row.delta, others), []).append(row)
    return [
        sorted(group, key=lambda row: float(row.settings.get(SCALE, 1)))
        for group in groups.values()
        if len(group) > 1
    ]
