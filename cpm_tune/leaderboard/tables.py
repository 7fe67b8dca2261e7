"""Shared by the table formats: numbers, costs, and the texts of published results."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal

from cpm_tune.leaderboard.board import Board, Cell, Column, MeasuredRow, PublishedRow
from cpm_tune.leaderboard.forgetting import measured, shown

_EXACT = 1e12  # from here on a number of 12 digits has no fraction
PUBLISHED = "quoted from publications, not measured here"
DAGGER = "†"
NOT_ABOVE = "not above the best shortcut without a model by more than its interval"
BOLD = {  # by whether places are known
    True: "paired tests do not exclude the first place",
    False: "the best of a column, without a test",
}


def number(value: float | None, digits: int = 2) -> str:
    """A score, or a blank. A half is rounded up, as on the page, whatever its last binary digits:
    28.75, or 28.749999999999996, is 28.8."""
    if value is None:
        return ""
    if not abs(value) < _EXACT:  # nothing to round, or not finite
        return f"{value:.{digits}f}"
    return f"{plain(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)}"


def plain(value: float) -> Decimal:
    """A number without the rounding errors of its last digits: 57.5 for 57.49999999999999."""
    return Decimal(f"{value:.12g}")


def best_of(board: Board, column: Column) -> float | None:
    """The best mean of the measured rows in a column; None if there is only one row."""
    means = [row.cells[column.id].mean for row in board.rows if column.id in row.cells]
    if len(means) < 2:
        return None
    return max(means) if column.higher_is_better else min(means)


def is_bold(board: Board, row: MeasuredRow, column: Column) -> bool:
    """Whether a row's score is in bold: as BOLD says, whether places are known."""
    cells = [each.cells[column.id] for each in board.rows if column.id in each.cells]
    cell = row.cells[column.id]
    if any(each.places for each in cells):
        return cell.places is not None and cell.places.first == 1
    return cell.mean == best_of(board, column)


def has_places(board: Board) -> bool:
    """Whether paired tests gave places to any score."""
    return any(cell.places for row in board.rows for cell in row.cells.values())


def has_unbeaten(board: Board) -> bool:
    """Whether any score is not above a shortcut."""
    return any(cell.not_above for row in board.rows for cell in row.cells.values())


def prompt(column: Column) -> str:
    """The template and the scoring rule of a column's runs, and what else they share."""
    return ", ".join(filter(None, (column.template_name, column.scoring, *column.protocol)))


def published_tasks(board: Board) -> dict[str, str]:
    """The tasks with published scores, each with its printed metric."""
    return {column.task: column.metric for column in board.columns_of(board.quoted)}


def published_scores(board: Board, row: PublishedRow, tasks: Iterable[str]) -> list[str]:
    """A published row's scores on these tasks; a blank if there is none."""
    scores = {board.column(name).task: cell.value for name, cell in row.cells.items()}
    return [number(scores.get(task)) for task in tasks]


def published_protocols(board: Board) -> list[str]:
    """One line per way in which published scores were measured: it, then the tasks and rows."""
    measured = {name for row in board.rows for name in row.cells}
    lines: dict[str, dict[str, list[str]]] = {}
    for row in board.quoted:
        for name, score in row.cells.items():
            place = f"{score.protocol}, as runs in column {name}" * (name in measured)
            tasks = lines.setdefault(place or score.protocol, {})
            tasks.setdefault(board.column(name).task, []).append(f"{row.name}, {row.setting}")
    return [
        f"{protocol}: " + "; ".join(f"{task} ({' / '.join(of)})" for task, of in tasks.items())
        for protocol, tasks in sorted(lines.items())
    ]


def indices(
    board: Board, row: MeasuredRow | PublishedRow, names: Iterable[str] | None = None
) -> list[str]:
    """A row's indices in the board's order, with its places if they are known."""
    return [
        number(index.value, 1) + (f" ({index.places})" if index.places else "")
        for index in (row.indices[name] for name in (board.indices if names is None else names))
    ]


def parameters(n: int | None) -> str:
    """6291456 as 6.3M; a blank if there is no number."""
    if n is None:
        return ""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.1f}{unit}"
    return f"{n}"


def costs(row: MeasuredRow, board: Board) -> dict[str, str]:
    """The costs of a row by heading, and what it forgot if that is known of any row."""
    cost = row.cost
    gib = cost.peak_memory_bytes
    return {
        "trained": parameters(cost.n_trainable),
        "saved MB": "" if cost.bytes is None else number(cost.bytes / 1e6, 1),
        "samples/s": _spread(cost.samples_per_second, cost.samples_per_second_std, 1),
        "hours": _hours(cost.seconds, cost.seconds_std),
        "Wh": "" if cost.energy_joules is None else number(cost.energy_joules / 3600, 2),
        "peak GiB": "" if gib is None else number(gib / 2**30, 2),
        "efficiency": _efficiency(row.cells.values()),
        **({"forgetting": shown(row.forgetting)} if measured(board.rows) else {}),
    }


def _spread(value: float | None, std: float | None, digits: int) -> str:
    return number(value, digits) + ("" if std is None else f" ± {number(std, digits)}")


def _hours(seconds: float | None, std: float | None) -> str:
    if seconds is None:
        return ""
    digits = 2 if seconds >= 3600 else 3
    return _spread(seconds / 3600, None if std is None else std / 3600, digits)


def _efficiency(cells: Iterable[Cell]) -> str:
    """Parallel efficiency by number of processes, over the cells that have it: "2: 0.93"."""
    by_size: dict[int, list[float]] = {}
    for cell in cells:
        for part in cell.cost.scaling:
            if part.world_size > 1 and part.efficiency is not None:
                by_size.setdefault(part.world_size, []).append(part.efficiency)
    return ", ".join(f"{n}: {sum(e) / len(e):.2f}" for n, e in sorted(by_size.items()))
