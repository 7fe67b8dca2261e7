"""A comparison as text, Markdown or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from cpm_tune.common.texts import table
from cpm_tune.leaderboard.compare import HOLM, LEVEL, Line, Report, matrix

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def render(report: Report, style: str, with_matrix: bool) -> str:
    """The report as text, md or json."""
    if style == "json":
        return _json(report)
    md = style == "md"
    names = [f"{_letter(i)}  {name}" for i, name in enumerate(report.sides)]
    blocks = ["\n".join(f"- {name}" if md else name for name in names)]
    if with_matrix:
        blocks.append(_matrix(report, md))
    else:
        blocks.append(_lines(report, md))
        blocks.append("\n".join(_totals(report)))
    said = [*_methods(report), *(f"note: {note}" for note in report.notes)]
    said += [f"not compared: {apart}" for apart in report.not_compared]
    blocks.append("\n".join(f"- {line}" if md else line for line in said))
    return "\n\n".join(blocks)


def _letter(number: int) -> str:
    """A to Z, then A1, B1, …"""
    turn, place = divmod(number, len(LETTERS))
    return LETTERS[place] + (str(turn) if turn else "")


def _p(value: float) -> str:
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]], md: bool) -> str:
    if not md:
        return table(header, rows)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)


def _lines(report: Report, md: bool) -> str:
    two = len(report.sides) == 2
    scores = ("A", "B", "A - B") if two else ("pair", "first", "second", "difference")
    header = ("dataset", "metric", "n", *scores, "95% interval", "p", "Holm p", "verdict", "test")
    rows = []
    for line in report.lines:
        found = line.found
        pair = () if two else (f"{_letter(line.a)} - {_letter(line.b)}",)
        bounds = "-" if found.low is None else f"[{found.low:+.4f}, {found.high:+.4f}]"
        rows.append(
            (
                *(line.task, line.metric + ("" if line.higher_is_better else " (less is better)")),
                str(found.n),
                *pair,
                _score(found.a, found.a_std),
                _score(found.b, found.b_std),
                f"{found.difference:+.4f}",
                bounds,
                _p(found.p),
                _p(line.p_holm),
                line.verdict,
                found.test.split(",")[0] if "McNemar" not in found.test else found.test,
            )
        )
    return _grid(header, rows, md)


def _score(value: float, std: float | None) -> str:
    return f"{value:.4f}" + ("" if std is None else f" ± {std:.4f}")


def _totals(report: Report) -> list[str]:
    said = []
    for i, row in enumerate(matrix(report)):
        for j, cell in enumerate(row):
            if cell is not None and i < j:
                won, tied, lost = cell
                said.append(
                    f"{_letter(i)} against {_letter(j)}: {won} won, {tied} tied, {lost} lost"
                )
    return said


def _matrix(report: Report, md: bool) -> str:
    letters = [_letter(i) for i in range(len(report.sides))]
    rows = [
        [letters[i], *("-" if cell is None else "/".join(map(str, cell)) for cell in row)]
        for i, row in enumerate(matrix(report))
    ]
    about = "wins/ties/losses of the row against the column, over the datasets that both have"
    return f"{about}\n{'' if not md else chr(10)}{_grid(['', *letters], rows, md)}"


def _methods(report: Report) -> list[str]:
    """The names of what was computed."""
    intervals = dict.fromkeys(line.found.interval for line in report.lines if line.found.interval)
    tests = dict.fromkeys(line.found.test for line in report.lines)
    n = len(report.lines)
    return [
        *(f"interval: {name}" for name in intervals),
        *(f"test: {name}" for name in tests),
        f"{HOLM} ({n} test{'s' * (n != 1)})",
        "rule: same task and version, same file, limit and skipped rows; templates may differ",
    ]


def _json(report: Report) -> str:
    def one(line: Line) -> dict[str, object]:
        own = {k: v for k, v in asdict(line).items() if k != "found"}
        return {**own, **asdict(line.found)}

    return json.dumps(
        {
            "rows": report.sides,
            "comparisons": [one(line) for line in report.lines],
            "matrix": matrix(report),
            "level": LEVEL,
            "holm": HOLM,
            "split": report.options.split,
            "notes": report.notes,
            "not_compared": report.not_compared,
        },
        ensure_ascii=False,
        indent=1,
    )
