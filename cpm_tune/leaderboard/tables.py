"""A Board as Markdown, CSV (long or wide), LaTeX (booktabs) and JSON.

Measured and quoted rows are never in one block: quoted ones come after, and say so.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from itertools import groupby

from cpm_tune.common.sizes import counted
from cpm_tune.common.texts import table
from cpm_tune.leaderboard.board import Board, Cell, Column, Row

QUOTED = "quoted from publications, not measured here"


def as_json(board: Board) -> str:
    """The board itself; its JSON Schema is board.schema.json in the package."""
    return board.model_dump_json(indent=1)


def number(value: float | None, digits: int = 2) -> str:
    """A score, or a blank."""
    return "" if value is None else f"{value:.{digits}f}"


def score(cell: Cell | None) -> str:
    """mean ± std of several seeds; one seed's value alone."""
    if cell is None:
        return ""
    return number(cell.mean) + ("" if cell.std is None else f" ± {number(cell.std)}")


def best_of(board: Board, column: Column) -> float | None:
    """The best mean of the measured rows in a column; None where there is only one row."""
    means = [row.cells[column.id].mean for row in board.rows if column.id in row.cells]
    if len(means) < 2:
        return None
    return max(means) if column.higher_is_better else min(means)


def parameters(n: int | None) -> str:
    """6291456 as 6.3M; a blank where there is no number."""
    if n is None:
        return ""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.1f}{unit}"
    return f"{n}"


def costs(row: Row) -> dict[str, str]:
    """The costs of a row by heading."""
    cost = row.cost
    gib = cost.peak_memory_bytes
    return {
        "trained": parameters(cost.n_trainable),
        "saved MB": "" if cost.bytes is None else number(cost.bytes / 1e6, 1),
        "samples/s": number(cost.samples_per_second, 1),
        "hours": "" if cost.seconds is None else number(cost.seconds / 3600, 2),
        "peak GiB": "" if gib is None else number(gib / 2**30, 2),
        "scaling": scaling(row.cells.values()),
    }


def scaling(cells: Iterable[Cell]) -> str:
    """Efficiency by number of processes, over the cells that have it: "2: 0.93"."""
    by_size: dict[int, list[float]] = {}
    for cell in cells:
        for part in cell.cost.scaling:
            if part.world_size > 1 and part.efficiency is not None:
                by_size.setdefault(part.world_size, []).append(part.efficiency)
    return ", ".join(f"{n}: {sum(e) / len(e):.2f}" for n, e in sorted(by_size.items()))


def heading(column: Column) -> str:
    """The dataset, told from other columns of it by its number."""
    return column.id


def label(row: Row) -> str:
    """A row's name."""
    return row.id


def quoted_text(board: Board) -> str:
    """The quoted rows for the terminal, under a heading of their own."""

    columns = [c for c in board.columns if any(c.id in row.cells for row in board.quoted)]
    header = ("row", *board.indices, *(c.task for c in columns))
    rows = [
        (
            f"{row.name}, {row.setting}",
            *(number(row.indices[name].value, 1) or "-" for name in board.indices),
            *(number(row.cells[c.id].value) if c.id in row.cells else "-" for c in columns),
        )
        for row in board.quoted
    ]
    sources = [f"  {stem}: {source}" for stem, source in board.sources.items()]
    return "\n".join([f"Quoted rows ({QUOTED}):", table(header, rows), *sources])


def as_csv(board: Board, wide: bool = False) -> str:
    """Long: a line for each cell, with interval and cost. Wide: a line for each row.

    A text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for line in _wide(board) if wide else _long(board):
        writer.writerow([_inert(value) if isinstance(value, str) else value for value in line])
    return out.getvalue()


def _inert(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


LONG = (
    *("origin", "row", "backbone", "control", "delta", "settings"),
    *("capability", "kind", "task", "column", "metric", "official"),
    *("mean", "std", "low", "high", "interval", "seeds"),
    *("n_trainable", "bytes", "samples_per_second", "seconds", "peak_memory_bytes", "source"),
)


def _long(board: Board) -> Iterable[Sequence[object]]:
    yield LONG
    for row in board.rows:
        settings = " ".join(f"{k}={v}" for k, v in row.settings.items())
        for column in board.columns:
            cell = row.cells.get(column.id)
            if cell is None:
                continue
            cost = cell.cost
            yield (
                *("measured", row.id, row.backbone, row.control, row.delta, settings),
                *_place(column),
                *(cell.mean, cell.std, cell.low, cell.high, cell.interval, len(cell.runs)),
                *(cost.n_trainable, cost.bytes, cost.samples_per_second, cost.seconds),
                *(cost.peak_memory_bytes, ""),
            )
    for quoted in board.quoted:
        for column in board.columns:
            figure = quoted.cells.get(column.id)
            if figure is not None:
                place = (*_place(column)[:4], figure.printed, "yes")
                source = "; ".join(filter(None, (board.sources[figure.source], figure.note)))
                yield (
                    *("quoted", quoted.id, quoted.name, "", quoted.setting, "", *place),
                    *(figure.value, *[None] * 4, None, *[None] * 5, source),
                )


def _place(column: Column) -> tuple[str, ...]:
    official = "yes" if column.official else "no"
    return column.capability, column.kind, column.task, column.id, column.metric, official


def _wide(board: Board) -> Iterable[Sequence[object]]:
    names = [column.id for column in board.columns]
    yield (
        *("origin", "row", "backbone", "delta", "coverage", *board.indices, *names),
        *("n_trainable", "bytes", "samples_per_second", "seconds", "peak_memory_bytes"),
    )
    for row in board.rows:
        cells = [row.cells[n].mean if n in row.cells else None for n in names]
        indices = [row.indices[name].value for name in board.indices]
        cost = row.cost
        yield (
            *("measured", row.id, row.backbone, row.delta, row.coverage, *indices, *cells),
            *(cost.n_trainable, cost.bytes, cost.samples_per_second, cost.seconds),
            cost.peak_memory_bytes,
        )
    for quoted in board.quoted:
        cells = [quoted.cells[n].value if n in quoted.cells else None for n in names]
        indices = [quoted.indices[name].value for name in board.indices]
        head = ("quoted", quoted.id, quoted.name, quoted.setting, len(quoted.cells))
        yield (*head, *indices, *cells, *[None] * 5)


def as_markdown(board: Board) -> str:
    """An overview a capability, then cost, quoted rows, what columns are, what was left out."""
    lines = ["# Leaderboard", ""]
    lines += [
        f"{counted(board.n_runs, 'run')}, {counted(len(board.rows), 'row')}. Scores are means over "
        "seeds ± standard deviation, in the unit of their metric; the best of a column is bold. "
        "Blank: no run.",
        "",
    ]
    columns = [c for c in board.columns if any(c.id in row.cells for row in board.rows)]
    for capability, members in groupby(columns, key=lambda c: c.capability):
        group = list(members)
        lines += [f"## {capability}", ""]
        lines += _md_table(
            ["row", *(f"{heading(c)}, {c.metric}" for c in group)],
            [
                [label(row), *(_md_cell(board, row, c) for c in group)]
                for row in board.rows
                if any(c.id in row.cells for c in group)
            ],
        )
    lines += _md_overall(board) + _md_quoted(board) + _md_columns(board)
    if board.left_out:
        lines += ["## Left out", "", *(f"- {_md(said)}" for said in board.left_out), ""]
    return "\n".join(lines).rstrip()


def _md(text: str) -> str:
    for char in "\\|<>*_`[]":
        text = text.replace(char, "\\" + char)
    return " ".join(text.split())


def _md_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(map(_md, header)) + " |"]
    lines.append("|---|" + "---:|" * (len(header) - 1))
    lines += ["| " + " | ".join((_md(row[0]), *row[1:])) + " |" for row in rows]
    return [*lines, ""]


def _md_cell(board: Board, row: Row, column: Column) -> str:
    cell = row.cells.get(column.id)
    if cell is None:
        return ""
    said = f"{score(cell)} [{number(cell.low)}, {number(cell.high)}]"
    return f"**{said}**" if cell.mean == best_of(board, column) else said


def _md_overall(board: Board) -> list[str]:
    if not board.rows:
        return []
    lines = ["## Indices and cost", ""]
    rules = board.indices.values()
    lines += [f"- {rule.title}: {rule.rule} Baseline: {rule.baseline}." for rule in rules]
    header = ["row", "datasets", *(r.title for r in rules), *costs(board.rows[0])]
    rows = [
        [
            label(row),
            f"{row.coverage}",
            *(number(row.indices[name].value, 1) for name in board.indices),
            *costs(row).values(),
        ]
        for row in board.rows
    ]
    return [*lines, "", *_md_table(header, rows)]


def _md_quoted(board: Board) -> list[str]:
    if not board.quoted:
        return []
    columns = [c for c in board.columns if any(c.id in row.cells for row in board.quoted)]
    header = ["row", *(r.title for r in board.indices.values()), *(c.task for c in columns)]
    rows = [
        [
            f"{row.name}, {row.setting}",
            *(number(row.indices[name].value, 1) for name in board.indices),
            *(number(row.cells[c.id].value) if c.id in row.cells else "" for c in columns),
        ]
        for row in board.quoted
    ]
    lines = [f"## Quoted rows ({QUOTED})", "", *_md_table(header, rows)]
    return [*lines, *(f"- {_md(source)}" for source in board.sources.values()), ""]


def _md_columns(board: Board) -> list[str]:
    header = ("column", "metric", "template", "test rows", "notes", "apart from its like")
    rows = [
        (
            c.id,
            _md(c.metric),
            _md(f"{c.template} v{c.template_version}") if c.template else "",
            f"{c.n:,}" if c.n else "",
            _md("; ".join(c.notes)),
            _md("; ".join(c.apart)),
        )
        for c in board.columns
    ]
    return ["## Columns", "", *_md_table(header, rows)]
