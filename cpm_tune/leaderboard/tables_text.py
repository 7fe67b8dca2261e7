"""A Board for the terminal: one table per column, best row first, then published results.

Scores are printed as they are recorded, fractions and not points, as every other command does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from cpm_tune.common.texts import table
from cpm_tune.leaderboard.board import Board, Cell, Column, MeasuredRow
from cpm_tune.leaderboard.forgetting import shown
from cpm_tune.leaderboard.outside_systems import KIND
from cpm_tune.leaderboard.settings import differing_settings
from cpm_tune.leaderboard.tables import (
    PUBLISHED,
    indices,
    prompt,
    published_protocols,
    published_scores,
    published_tasks,
)

HEADER = (
    *("backbone", "delta", "settings", "seeds"),
    *("score", "± / 95%", "trained", "samples/s", "peak GiB"),
)
_ALWAYS = {"train.lr", "train.batch_size"}  # the best-known settings of a trained delta


def as_text(board: Board) -> str:
    """The tables; "" if the board has none."""
    tables = [_table(board, column) for column in board.columns_of(board.rows)]
    tested = any(index.places for row in board.rows for index in row.indices.values())
    tables += [_means(board)] if tested else []
    return "\n\n".join([*tables, *([_published(board)] if board.quoted else [])])


def _means(board: Board) -> str:
    """Means over datasets with their places; rows without any are left out."""
    shown = {name: rule for name, rule in board.indices.items() if _known(board, name)}
    rows = [row for row in board.rows if any(row.indices[n].value is not None for n in shown)]
    rows.sort(key=lambda row: [-(row.indices[name].value or 0) for name in reversed(shown)])
    lines = [(row.id, *(text or "-" for text in indices(board, row, shown))) for row in rows]
    titles = [f"{rule.title}, place" for rule in shown.values()]
    return "\n".join(["Means over datasets:", table(("row", *titles), lines)])


def _known(board: Board, name: str) -> bool:
    return any(row.indices[name].value is not None for row in board.rows)


def _table(board: Board, column: Column) -> str:
    rows = [row for row in board.rows if column.id in row.cells]
    better = -1 if column.higher_is_better else 1
    rows.sort(key=lambda row: better * row.cells[column.id].mean)
    settings = _shown_settings(rows, column.id)
    scale = 100 if column.unit == "points" else 1
    title = (
        f"{column.task} v{column.version}: {column.metric}, template {prompt(column) or '-'}, "
        f"test {(column.test_sha256 or '-')[:8]}, n={column.n}"
    )
    notes = [*column.notes]
    if column.majority is not None:
        notes.append(f"majority class {column.majority / scale:.4f}")
    if column.shortcuts:
        scores = (f"{name} {score / scale:.4f}" for name, score in column.shortcuts.items())
        notes.append(f"shortcuts without a model: {', '.join(scores)}")
    lines: list[tuple[str, ...]] = [
        (
            row.backbone + (f" ({row.control})" if row.control else ""),
            f"({KIND})" if row.delta == KIND else row.delta,
            _settings(row, row.cells[column.id], settings),
            *_numbers(row.cells[column.id], scale),
        )
        for row in rows
    ]
    header: tuple[str, ...] = HEADER
    if column.repeats == "folds":
        header = tuple("runs" if name == "seeds" else name for name in HEADER)
    if any(row.cells[column.id].places for row in rows):
        header = (*header, "place")
        places = [str(row.cells[column.id].places or "-") for row in rows]
        lines = [(*line, place) for line, place in zip(lines, places, strict=True)]
    if any(row.cells[column.id].not_above for row in rows):
        header = (*header, "not above")
        shortcuts = (row.cells[column.id].not_above or "-" for row in rows)
        lines = [(*line, names) for line, names in zip(lines, shortcuts, strict=True)]
    if any(row.cells[column.id].forgetting for row in rows):
        header = (*header, "forgetting")
        forgot = (row.cells[column.id].forgetting for row in rows)
        numbers = [shown(each.mean if each else None, "-") for each in forgot]
        lines = [(*line, number) for line, number in zip(lines, numbers, strict=True)]
    return "\n".join([title, *(f"  {note}" for note in notes), table(header, lines)])


def _shown_settings(rows: list[MeasuredRow], column: str) -> set[str]:
    """The settings that differ between the trained rows of a column, and the best-known ones. A
    delta's own settings count if rows of that delta differ in them: its name tells the rest."""
    settings: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for row in rows:
        if "train.lr" in row.cells[column].settings:
            settings[row.delta].append(row.cells[column].settings)
    everywhere = differing_settings(one for of_delta in settings.values() for one in of_delta)
    general = {key for key in everywhere if not key.startswith("delta.")}
    return _ALWAYS.union(general, *map(differing_settings, settings.values()))


def _settings(row: MeasuredRow, cell: Cell, shown: set[str]) -> str:
    trained = "train.lr" in cell.settings
    keys = shown | set(row.settings) if trained else set(row.settings)
    texts = [f"{_short(key)}={value}" for key, value in cell.settings.items() if key in keys]
    return " ".join(texts) or "-"


def _short(key: str) -> str:
    part, _, name = key.partition(".")
    return name if part in ("train", "delta", "encode", "decode") else key


def _numbers(cell: Cell, scale: int) -> tuple[str, ...]:
    cost = cell.cost
    low, high = cell.low / scale, cell.high / scale
    spread = f"[{low:.4f}, {high:.4f}]" if cell.std is None else f"± {cell.std / scale:.4f}"
    gib = cost.peak_memory_bytes
    return (
        str(len(cell.runs)),
        f"{cell.mean / scale:.4f}",
        spread,
        "-" if cost.n_trainable is None else f"{cost.n_trainable:,}",
        "-" if cost.samples_per_second is None else f"{cost.samples_per_second:.1f}",
        "-" if gib is None else f"{gib / 2**30:.2f}",
    )


def _published(board: Board) -> str:
    tasks = published_tasks(board)
    header = ("row", *board.indices, *tasks)
    rows = [
        (
            f"{row.name}, {row.setting}",
            *(text or "-" for text in (*indices(board, row), *published_scores(board, row, tasks))),
        )
        for row in board.quoted
    ]
    sources = [f"  {stem}: {source}" for stem, source in board.sources.items()]
    protocols = [f"  {line}" for line in published_protocols(board)]
    heading = f"Published results ({PUBLISHED}):"
    return "\n".join([heading, table(header, rows), *protocols, *sources])
