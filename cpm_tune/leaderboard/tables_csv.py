"""A Board as CSV: long, one line per score with interval and cost, or wide, one line per row."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence

from cpm_tune.errors import escaped
from cpm_tune.leaderboard.board import Board, Cell, Column, Cost, MeasuredRow
from cpm_tune.leaderboard.tables import has_places, has_unbeaten, plain

_FORMULA = (*"=+-@＝＋－＠", "\t", "\r", "\n")
_COSTS = (
    *("n_trainable", "bytes", "samples_per_second", "seconds", "peak_memory_bytes"),
    *("energy_joules", "samples_per_second_std", "seconds_std"),
)
LONG = (
    *("origin", "row", "backbone", "control", "delta", "settings"),
    *("capability", "kind", "task", "column", "template", "scoring", "metric", "official"),
    *("mean", "std", "low", "high", "interval", "seeds", *_COSTS, "source"),
)


def as_csv(board: Board) -> str:
    """One line per score."""
    return _text(_long(board))


def as_csv_wide(board: Board) -> str:
    """One line per row."""
    return _text(_wide(board))


def _text(lines: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for line in lines:
        writer.writerow([_field(value) for value in line])
    return out.getvalue().rstrip("\n")


def _field(value: object) -> object:
    if isinstance(value, float):
        return float(plain(value))
    return _inert(value) if isinstance(value, str) else value


def _inert(text: str) -> str:
    """A text that a spreadsheet would take for a formula, in full width too, gets an apostrophe
    before it; control characters are escaped (a carriage return would begin another row)."""
    return escaped(f"'{text}" if text.startswith(_FORMULA) else text)


def _costs(cost: Cost) -> list[object]:
    return [getattr(cost, name) for name in _COSTS]


def _judged(board: Board) -> Callable[[Cell | None], dict[str, object]]:
    """The possible places of a cell, if rows were tested, and the shortcuts that it is not above,
    if any is not, by column."""
    tested, unbeaten = has_places(board), has_unbeaten(board)

    def judged(cell: Cell | None) -> dict[str, object]:
        places = cell.places if cell else None
        names = ("first", "last", "of") if tested else ()
        columns = {f"place_{name}": getattr(places, name, None) for name in names}
        if unbeaten:
            columns["not_above"] = cell.not_above if cell else ""
        return columns

    return judged


def _forgetting(board: Board, value: float | None = None, *, head: bool = False) -> list[object]:
    """The last column, if any row has that number."""
    if not any(cell.forgetting for row in board.rows for cell in row.cells.values()):
        return []
    return ["forgetting" if head else value]


def _long(board: Board) -> Iterable[Sequence[object]]:
    judged = _judged(board)
    yield (*LONG, *judged(None), *_forgetting(board, head=True))
    for row in board.rows:
        for column in board.columns_of([row]):
            cell = row.cells[column.id]
            forgot = cell.forgetting.mean if cell.forgetting else None
            yield (
                *("measured", row.id, row.backbone, row.control, row.delta, _settings(row)),
                *_place(column, _template(column), column.scoring),
                *(column.metric, _yes(column.official)),
                *(cell.mean, cell.std, cell.low, cell.high, cell.interval, len(cell.runs)),
                *(*_costs(cell.cost), "", *judged(cell).values(), *_forgetting(board, forgot)),
            )
    for published in board.quoted:
        for column in board.columns_of([published]):
            score = published.cells[column.id]
            source = "; ".join(filter(None, (board.sources[score.source], score.note)))
            yield (
                *("quoted", published.id, published.name, "", published.setting, ""),
                *_place(column, score.template, score.scoring),
                *(score.printed, _yes(True)),
                *(score.value, *[None] * (5 + len(_COSTS)), source),
                *(*judged(None).values(), *_forgetting(board)),
            )


def _settings(row: MeasuredRow) -> str:
    return " ".join(f"{k}={v}" for k, v in row.settings.items())


def _place(column: Column, template: str, scoring: str) -> tuple[str, ...]:
    return column.capability, column.kind, column.task, column.id, template, scoring


def _template(column: Column) -> str:
    return ", ".join(filter(None, (column.template_name, *column.protocol)))


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _wide(board: Board) -> Iterable[Sequence[object]]:
    names = [column.id for column in board.columns]
    yield (
        *("origin", "row", "backbone", "control", "delta", "settings", "coverage"),
        *(*board.indices, *names, *_COSTS),
        *_forgetting(board, head=True),
    )
    for row in board.rows:
        means = [row.cells[n].mean if n in row.cells else None for n in names]
        indices = [row.indices[name].value for name in board.indices]
        what = (row.backbone, row.control, row.delta, _settings(row))
        head = ("measured", row.id, *what, row.coverage)
        yield (*head, *indices, *means, *_costs(row.cost), *_forgetting(board, row.forgetting))
    for published in board.quoted:
        values = [published.cells[n].value if n in published.cells else None for n in names]
        indices = [published.indices[name].value for name in board.indices]
        what = (published.name, "", published.setting, "")
        head = ("quoted", published.id, *what, len(published.cells))
        yield (*head, *indices, *values, *_costs(Cost()), *_forgetting(board))
