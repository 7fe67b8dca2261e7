"""A Board as LaTeX: booktabs tables, at most seven columns wide, in a document that compiles."""

from __future__ import annotations

from collections.abc import Sequence

from cpm_tune.leaderboard.board import Board, Column, MeasuredRow
from cpm_tune.leaderboard.tables import (
    BOLD,
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

WIDTH = 7
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{char: f"\\{char}" for char in "&%$#_"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
}
HEAD = r"""% Needs booktabs. Names with Chinese characters need xelatex and the package ctex.
\documentclass{article}
\usepackage{iftex}
\ifPDFTeX\usepackage[T1]{fontenc}\usepackage[utf8]{inputenc}\fi
\usepackage[a4paper,landscape,margin=15mm]{geometry}
\usepackage{booktabs}
%CTEX%
\begin{document}
"""
TAIL = r"\end{document}"


def escape(text: str) -> str:
    """Text that LaTeX prints unchanged."""
    return "".join(_ESCAPES.get(char, char) for char in " ".join(text.split()))


def as_latex(board: Board) -> str:
    """Scores of measured rows, their indices and costs, and published results, in that order."""
    parts = []
    measured = board.columns_of(board.rows)
    for start in range(0, len(measured), WIDTH):
        part = measured[start : start + WIDTH]
        rows = [
            [escape(row.id), *(_cell(board, row, c) for c in part)]
            for row in board.rows
            if any(c.id in row.cells for c in part)
        ]
        names = ["", *(escape(c.id) for c in part)]
        small = [["", *map(_small, line)] for line in zip(*map(_under, part), strict=True)]
        over = " or ".join(sorted({column.repeats for column in part}))
        bold = f"Bold: {BOLD[has_places(board)]}."
        caption = f"Scores, mean $\\pm$ standard deviation over {over}. {bold}"
        caption += rf" $\dagger$: {NOT_ABOVE}." if has_unbeaten(board) else ""
        parts.append(_tabular(caption, [names, *small], rows))
    if board.rows:
        titles = [escape(rule.title) for rule in board.indices.values()]
        header = ["", "datasets", *titles, *map(escape, costs(board.rows[0], board))]
        rows = [
            [
                escape(row.id),
                f"{row.coverage}",
                *indices(board, row),
                *map(escape, costs(row, board).values()),
            ]
            for row in board.rows
        ]
        parts.append(_tabular("Indices and cost.", [header], rows))
    published = list(published_tasks(board).items())
    for start in range(0, len(published), WIDTH):
        shown = dict(published[start : start + WIDTH])
        scores = [(row, published_scores(board, row, shown)) for row in board.quoted]
        rows = [[escape(f"{row.name}, {row.setting}"), *of] for row, of in scores if any(of)]
        headers = [["", *map(escape, shown)], ["", *map(_small, shown.values())]]
        parts.append(_tabular(f"Published results, {PUBLISHED}.", headers, rows))
    if board.quoted:
        parts.append("\\noindent\\footnotesize " + _lines(published_protocols(board)))
    text = "\n\n".join(parts) or "No finished runs."
    chinese = any("\u4e00" <= char <= "\u9fff" for char in text)
    return HEAD.replace("%CTEX%\n", "\\usepackage{ctex}\n" if chinese else "") + text + "\n" + TAIL


def _cell(board: Board, row: MeasuredRow, column: Column) -> str:
    cell = row.cells.get(column.id)
    if cell is None:
        return ""
    text = number(cell.mean)
    text = rf"\textbf{{{text}}}" if is_bold(board, row, column) else text
    text += r"$^\dagger$" if cell.not_above else ""
    text += "" if cell.std is None else rf" {{\scriptsize $\pm$ {number(cell.std)}}}"
    return text + (rf" {{\scriptsize ({cell.places})}}" if cell.places else "")


def _under(column: Column) -> tuple[str, str]:
    """What is below a column's name: its metric, and how its answers are scored."""
    return column.metric, prompt(column)


def _small(text: str) -> str:
    return rf"{{\scriptsize {escape(text)}}}"


def _lines(texts: Sequence[str]) -> str:
    return " \\\\\n".join(escape(f"{text}.") for text in texts)


def _tabular(caption: str, headers: Sequence[Sequence[str]], rows: Sequence[Sequence[str]]) -> str:
    lines = [
        r"\begin{table}[ht]\centering\footnotesize",
        rf"\caption{{{caption}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(headers[0]) - 1)}}}",
        r"\toprule",
        *(" & ".join(header) + r" \\" for header in headers),
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)
