"""Forgetting on the board: the records' losses on plain texts, as means over sources and seeds."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from cpm_tune.leaderboard.board import Board, Column, Forgetting, MeasuredRow
from cpm_tune.leaderboard.means import mean
from cpm_tune.schema.record import RunRecord

SCALE = "delta_scale"  # the setting that tells runs of `scale` apart
_INTERSECTED = 50  # different sets of texts

Sources = frozenset[tuple[str, str]]  # names and the SHA-256 of their texts


def cell_forgetting(records: Sequence[RunRecord]) -> Forgetting | None:
    """What equal runs forgot of the texts that all were measured on; None if there are none."""
    common = frozenset.intersection(*map(_sources, records))
    if not common:
        return None
    sources = {
        name: mean(record.forgetting[name].difference for record in records)
        for name in records[0].forgetting
        if (name, records[0].forgetting[name].sha256) in common
    }
    return _of(sources, dict(common))


def _sources(record: RunRecord) -> Sources:
    return frozenset((name, each.sha256) for name, each in record.forgetting.items())


def _of(sources: Mapping[str, float], hashes: Mapping[str, str]) -> Forgetting:
    parts = sorted(f"{name} {hashes[name]}" for name in sources)
    texts = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
    return Forgetting(
        mean=mean(sources.values()), sources=dict(sources), texts=texts, hashes=dict(hashes)
    )


def choose_texts(columns: Sequence[Column], rows: Sequence[MeasuredRow]) -> None:
    """Keep on the board the forgetting on those texts that most cells were measured on, so that its
    numbers can be compared; columns count and note the cells that were measured on others. A row's
    is the mean over its cells, None unless all have it."""
    cells = [cell for row in rows for cell in row.cells.values()]
    counts = Counter(
        frozenset(cell.forgetting.hashes.items()) for cell in cells if cell.forgetting is not None
    )
    if not counts:
        return
    chosen = _most(counts)
    note = different_texts(name for name, _ in chosen)
    for column in columns:
        for row in rows:
            cell = row.cells.get(column.id)
            if cell is None or cell.forgetting is None:
                continue
            part = cell.forgetting
            if chosen <= frozenset(part.hashes.items()):
                kept = {name: part.sources[name] for name in part.sources if name in dict(chosen)}
                changed = _of(kept, dict(chosen))
            else:
                changed = None
                column.other_texts += 1
            row.cells[column.id] = cell.model_copy(update={"forgetting": changed})
        if column.other_texts:
            column.notes.append(note)
    for row in rows:
        parts = [cell.forgetting for cell in row.cells.values()]
        known = [part.mean for part in parts if part is not None]
        row.forgetting = mean(known) if known and len(known) == len(parts) else None


def _most(counts: Counter[Sources]) -> Sources:
    """The sources that most cells have, of sets of them and what two sets have in common; of equal
    ones the most sources."""
    common = [sources for sources, _ in counts.most_common(_INTERSECTED)]
    candidates = {a & b for a in common for b in common} - {frozenset()}

    def rank(sources: Sources) -> tuple[int, int, list[tuple[str, str]]]:
        n = sum(count for each, count in counts.items() if sources <= each)
        return n, len(sources), sorted(sources)

    return max(candidates, key=rank)


def different_texts(sources: Iterable[str]) -> str:
    """The note that some forgetting is blank, because it was not measured on these sources."""
    names = ", ".join(sorted(sources))
    return f"forgetting was measured on different texts: blank where not on {names}"


def note_of(board: Board) -> str:
    """That note for a whole board; "" if no cell was measured on other texts."""
    if not any(column.other_texts for column in board.columns):
        return ""
    cells = (cell for row in board.rows for cell in row.cells.values())
    return different_texts(next(cell.forgetting.sources for cell in cells if cell.forgetting))


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
