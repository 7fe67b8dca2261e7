"""A comparison as text, Markdown or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from cpm_tune.common.texts import table
from cpm_tune.leaderboard.compare import HOLM, LEVEL, Comparison, Report, matrix
from cpm_tune.leaderboard.power import POWER, detectable, needed, standard_error

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def render(report: Report, style: str, with_matrix: bool, difference: float | None = None) -> str:
    """The report as text, md or json; text and md say how many rows would show a `difference`."""
    if style == "json":
        return _json(report)
    md = style == "md"
    names = [f"{_letter(i)}  {name}" for i, name in enumerate(report.systems)]
    blocks = ["\n".join(f"- {name}" if md else name for name in names)]
    if with_matrix:
        blocks.append(_matrix(report, md))
    else:
        blocks.append(_comparisons(report, md))
        blocks.append("\n".join(_totals(report)))
    notes = [
        *_methods(report),
        *_power(report, difference),
        *(f"note: {note}" for note in report.notes),
    ]
    notes += [f"not compared: {reason}" for reason in report.not_compared]
    blocks.append("\n".join(f"- {note}" if md else note for note in notes))
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


def _comparisons(report: Report, md: bool) -> str:
    two = len(report.systems) == 2
    scores = ("A", "B", "A - B") if two else ("pair", "first", "second", "difference")
    header = ("dataset", "metric", "n", *scores, "95% interval", "p", "Holm p", "verdict", "test")
    rows = []
    for c in report.comparisons:
        result = c.result
        pair = () if two else (f"{_letter(c.a)} - {_letter(c.b)}",)
        bounds = "-" if result.low is None else f"[{result.low:+.4f}, {result.high:+.4f}]"
        rows.append(
            (
                *(c.task, c.metric + ("" if c.higher_is_better else " (less is better)")),
                str(result.n),
                *pair,
                _score(result.a, result.a_std),
                _score(result.b, result.b_std),
                f"{result.difference:+.4f}",
                bounds,
                _p(result.p),
                _p(c.p_holm),
                c.verdict,
                result.test.split(",")[0] if "McNemar" not in result.test else result.test,
            )
        )
    return _grid(header, rows, md)


def _score(value: float, std: float | None) -> str:
    return f"{value:.4f}" + ("" if std is None else f" ± {std:.4f}")


def _totals(report: Report) -> list[str]:
    totals = []
    for i, row in enumerate(matrix(report)):
        for j, cell in enumerate(row):
            if cell is not None and i < j:
                won, tied, lost = cell
                totals.append(
                    f"{_letter(i)} against {_letter(j)}: {won} won, {tied} tied, {lost} lost"
                )
    return totals


def _matrix(report: Report, md: bool) -> str:
    letters = [_letter(i) for i in range(len(report.systems))]
    rows = [
        [letters[i], *("-" if cell is None else "/".join(map(str, cell)) for cell in row)]
        for i, row in enumerate(matrix(report))
    ]
    about = "wins/ties/losses of the row against the column, over the datasets that both have"
    return f"{about}\n{'' if not md else chr(10)}{_grid(['', *letters], rows, md)}"


def _power(report: Report, difference: float | None) -> Iterator[str]:
    """What difference the rows of each comparison show, and how many rows would show another."""
    for c in report.comparisons:
        if (error := standard_error(c.result)) is None:
            continue
        pair = f"{c.task}, {_letter(c.a)} - {_letter(c.b)}"
        text = (
            f"power: {pair}: {c.result.n:,} rows show a difference of {detectable(error):.4f} "
            f"with a probability of {POWER:.0%}"
        )
        if difference is not None:
            rows = needed(error, c.result.n, difference)
            text += f", and about {rows:,} rows one of {difference:g}"
        yield text


def _methods(report: Report) -> list[str]:
    """The names of what was computed."""
    results = [comparison.result for comparison in report.comparisons]
    intervals = dict.fromkeys(result.interval for result in results if result.interval)
    tests = dict.fromkeys(result.test for result in results)
    n = len(results)
    return [
        *(f"interval: {name}" for name in intervals),
        *(f"test: {name}" for name in tests),
        f"{HOLM} ({n} test{'s' * (n != 1)})",
        "rule: same task and version, same file, limit and skipped rows; templates and scoring may "
        "differ",
    ]


def _json(report: Report) -> str:
    def one(comparison: Comparison) -> dict[str, object]:
        about = {k: v for k, v in asdict(comparison).items() if k != "result"}
        return {**about, **asdict(comparison.result)}

    return json.dumps(
        {
            "rows": report.systems,
            "comparisons": [one(comparison) for comparison in report.comparisons],
            "matrix": matrix(report),
            "level": LEVEL,
            "holm": HOLM,
            "split": report.method.split,
            "notes": report.notes,
            "not_compared": report.not_compared,
        },
        ensure_ascii=False,
        indent=1,
    )
