"""A Board as Markdown. Measured rows and published results are never in one table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from cpm_tune.common.sizes import counted
from cpm_tune.common.texts import markdown
from cpm_tune.leaderboard.board import Board, Column, MeasuredRow
from cpm_tune.leaderboard.tables import (
    BOLD,
    DAGGER,
    NOT_ABOVE,
    PUBLISHED,
    costs,
    has_places,
    has_unbeaten,
    indices,
    is_bold,
    number,
    prompt,
    published_protocols,
    published_scores,
    published_tasks,
)


def as_markdown(board: Board) -> str:
    """One table per capability, then cost, published results, the columns, what was left out."""
    over = " or ".join(sorted({column.repeats for column in board.columns} or {"seeds"}))
    lines = ["# Leaderboard", ""]
    lines += [
        f"{counted(board.n_runs, 'run')}, {counted(len(board.rows), 'row')}. Scores are means over "
        f"{over} ± standard deviation, in the unit of their metric. Bold: "
        f"{BOLD[has_places(board)]}. Blank: no run.",
        *([f"{DAGGER}: {NOT_ABOVE}."] if has_unbeaten(board) else []),
        "",
    ]
    columns = board.columns_of(board.rows)
    for capability, members in groupby(columns, key=lambda c: c.capability):
        group = list(members)
        lines += [f"## {capability}", ""]
        lines += _md_table(
            ["row", *(f"{c.id}, {c.metric}" for c in group)],
            [
                [row.id, *(_md_cell(board, row, c) for c in group)]
                for row in board.rows
                if any(c.id in row.cells for c in group)
            ],
        )
    lines += _md_overall(board) + _md_published(board) + _md_columns(board)
    if board.left_out:
        lines += ["## Left out", "", *(f"- {markdown(reason)}" for reason in board.left_out), ""]
    return "\n".join(lines).rstrip()


def _md_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(map(markdown, header)) + " |"]
    lines.append("|---|" + "---:|" * (len(header) - 1))
    lines += ["| " + " | ".join((markdown(row[0]), *row[1:])) + " |" for row in rows]
    return [*lines, ""]


def _md_cell(board: Board, row: MeasuredRow, column: Column) -> str:
    cell = row.cells.get(column.id)
    if cell is None:
        return ""
    spread = "" if cell.std is None else f" ± {number(cell.std)}"
    mark = DAGGER if cell.not_above else ""
    text = f"{number(cell.mean)}{mark}{spread} [{number(cell.low)}, {number(cell.high)}]"
    text = f"**{text}**" if is_bold(board, row, column) else text
    return f"{text} ({cell.places})" if cell.places else text


def _md_overall(board: Board) -> list[str]:
    if not board.rows:
        return []
    lines = ["## Indices and cost", ""]
    rules = board.indices.values()
    lines += [f"- {rule.title}: {rule.rule} Baseline: {rule.baseline}." for rule in rules]
    header = ["row", "datasets", *(r.title for r in rules), *costs(board.rows[0], board)]
    rows = [
        [
            row.id,
            f"{row.coverage}",
            *indices(board, row),
            *costs(row, board).values(),
        ]
        for row in board.rows
    ]
    return [*lines, "", *_md_table(header, rows)]


def _md_published(board: Board) -> list[str]:
    if not board.quoted:
        return []
    tasks = published_tasks(board)
    header = ["row", *(r.title for r in board.indices.values()), *tasks]
    rows = [
        [
            f"{row.name}, {row.setting}",
            *indices(board, row),
            *published_scores(board, row, tasks),
        ]
        for row in board.quoted
    ]
    lines = [f"## Published results ({PUBLISHED})", "", *_md_table(header, rows)]
    lines += [f"- {markdown(line)}" for line in published_protocols(board)]
    return [*lines, *(f"- {markdown(source)}" for source in board.sources.values()), ""]


def _md_columns(board: Board) -> list[str]:
    header = (
        "column",
        "metric",
        "template, scoring",
        "test rows",
        "without a model",
        "notes",
        "differs from its other columns in",
    )
    rows = [
        (
            c.id,
            markdown(c.metric),
            markdown(prompt(c)),
            f"{c.n:,}" if c.n else "",
            markdown(_without_a_model(c)),
            markdown("; ".join(c.notes)),
            markdown("; ".join(c.apart)),
        )
        for c in board.columns
    ]
    return ["## Columns", "", *_md_table(header, rows)]


def _without_a_model(column: Column) -> str:
    """The scores of the most frequent answer and of shortcuts."""
    majority = {} if column.majority is None else {"majority": column.majority}
    return ", ".join(f"{name} {score:.2f}" for name, score in (majority | column.shortcuts).items())
