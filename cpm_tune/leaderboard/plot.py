"""The figures of the page as PNG and SVG files, drawn by matplotlib (the extra `plot`)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpm_tune.common.folders import MAKING, disk_trouble
from cpm_tune.common.writing import replacing
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.board import Board, MeasuredRow, PublishedRow
from cpm_tune.leaderboard.figures import (
    FORGETTING,
    Amount,
    Point,
    amounts,
    capability_means,
    curves,
    pareto_front,
    points,
    primary,
)
from cpm_tune.leaderboard.forgetting import note_of, scaled_alike
from cpm_tune.leaderboard.hierarchy import CAPABILITIES
from cpm_tune.leaderboard.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AnyRow = MeasuredRow | PublishedRow
COLOURS = (
    *("#0b6e8f", "#c2571a", "#3e7d3a", "#8a4a9e"),
    *("#b3324f", "#7b6a12", "#3f57b0", "#5c6670"),
)
MOST = len(COLOURS)
CHINESE = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC"),
    *("WenQuanYi Micro Hei", "PingFang SC", "Microsoft YaHei", "SimHei"),
)
COSTS = {
    "n_trainable": ("trained parameters", False),
    "bytes": ("saved bytes", False),
    "seconds": ("wall time, seconds", False),
    "peak_memory_bytes": ("peak memory, bytes", False),
    "samples_per_second": ("training samples/s", True),
    FORGETTING: ("forgetting: loss on plain texts above the backbone's, nats per character", False),
}


def draw(
    board: Board, results: Results, out: Path, rows: Sequence[str] = (), cost: str = "n_trainable"
) -> list[Path]:
    """Draw the seven capabilities, cost and quality, the learning curves of each column, forgetting
    and quality if that was measured, and, if runs differ in train.rows, the scores over the number
    of training rows; return the files.

    `rows` names the rows of capabilities and curves (the first four if none are named, at most
    eight).
    Raises UserError for an unknown row, without matplotlib, or if `out` cannot be written.
    """
    chosen = _chosen(board, rows)
    _set_up()
    records = {run.record.run_id: run.record for run in results.runs}
    figures = {
        "capabilities": _capabilities(board, chosen),
        f"cost-quality.{cost}": _scatter(board, chosen, cost),
        FORGETTING: _scatter(board, chosen, FORGETTING),
    }
    measured = [row for row in chosen if isinstance(row, MeasuredRow)]
    for column in board.columns:
        lines = curves(column, measured, records)
        if lines:
            name = column.id.replace("#", "-")
            figures[f"curves.{name}"] = _curves(lines, chosen, f"{column.id}: dev {column.metric}")
        wanted = measured if rows else board.rows
        if sizes := amounts(column, wanted, records):
            name = column.id.replace("#", "-")
            figures[f"rows.{name}"] = _amounts(sizes, f"{column.id}: test {column.metric}")
    written = []
    with disk_trouble(f"--out {out}", "make room, or choose another path", MAKING):
        out.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            for ending in ("png", "svg") if figure is not None else ():
                path = out / f"{name}.{ending}"
                assert figure is not None
                with replacing(path) as part:
                    dated = {"Date": None} if ending == "svg" else None
                    figure.savefig(part, format=ending, dpi=160, metadata=dated)
                written.append(path)
    return written


def _chosen(board: Board, names: Sequence[str]) -> list[AnyRow]:
    known = {row.id: row for row in _all(board)}
    for name in names:
        if name not in known:
            listed = "; ".join(known)
            raise UserError(f"--row '{name}': there is no such row; there are: {listed}.")
    if len(names) > MOST:
        raise UserError(f"--row: {len(names)} rows, at most {MOST} can be told apart in a figure.")
    return [known[name] for name in names] or list(board.rows[:4])


def _all(board: Board) -> list[AnyRow]:
    return [*board.rows, *board.quoted]


def _set_up() -> None:
    try:
        import matplotlib
    except ImportError as error:
        raise UserError(
            "matplotlib is not installed; run: python -m pip install 'cpm-tune[plot]'"
        ) from error
    from matplotlib import font_manager

    matplotlib.use("Agg")
    installed = {font.name for font in font_manager.fontManager.ttflist}
    chinese = [name for name in CHINESE if name in installed]
    matplotlib.rcParams.update(
        {
            "font.family": ["DejaVu Sans", *chinese],
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e3dfd7",
            "axes.edgecolor": "#9a9fa8",
            "svg.hashsalt": "cpm-tune",
            "figure.constrained_layout.use": True,
        }
    )


def _plain(name: str) -> str:
    """A name that matplotlib prints unchanged: a $ would begin a formula."""
    return name.replace("$", r"\$")


def _new(width: float, height: float, **axes: Any) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot(**axes)


def _capabilities(board: Board, rows: Sequence[AnyRow]) -> Figure | None:
    """A line per capability, a point per row: scores on one axis can be compared, areas cannot."""
    drawn = [(i, row, capability_means(board, row)) for i, row in enumerate(rows)]
    drawn = [one for one in drawn if any(v is not None for v in one[2])]
    if not drawn:
        return None
    figure, axes = _new(8, 4.5)
    places = range(len(CAPABILITIES))
    for i, row, means in drawn:
        known = [
            (mean, place) for mean, place in zip(means, places, strict=True) if mean is not None
        ]
        published = isinstance(row, PublishedRow)
        axes.scatter(
            *zip(*known, strict=True),
            s=46,
            marker="D" if published else "o",
            facecolors="none" if published else COLOURS[i],
            edgecolors=COLOURS[i],
            label=_plain(row.id),
            zorder=3,
        )
    axes.set_yticks(places, [textwrap.fill(name, 30) for name in CAPABILITIES], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("mean score over the datasets of a capability")
    axes.set_title("The seven capabilities", fontsize=11)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _scatter(board: Board, rows: Sequence[AnyRow], cost: str) -> Figure | None:
    plotted = points(board, cost)
    if not plotted:
        return None
    title, more = COSTS[cost]
    figure, axes = _new(8, 5)
    front = pareto_front(plotted, more)
    chosen = {row.id: COLOURS[i] for i, row in enumerate(rows)}
    axes.step(
        [p.cost for p in front],
        [p.quality for p in front],
        "--",
        where="post",
        color="#0b5d7a",
        label="Pareto front",
    )
    if cost == FORGETTING:
        axes.set_title(textwrap.fill(_plain(note_of(board)), 90), fontsize=9)
        _join_scaled(axes, board, {point.name: point for point in plotted})
    others = False
    for point in plotted:
        colour = chosen.get(point.name)
        label = _plain(point.name) if colour else None if others else "other rows"
        others = others or not colour
        size = 60 if colour else 28
        axes.scatter(
            point.cost, point.quality, s=size, color=colour or "#9a9fa8", label=label, zorder=3
        )
    if cost != FORGETTING:
        smallest = min((p.cost for p in plotted if p.cost > 0), default=1.0)
        axes.set_xscale(
            "symlog" if any(p.cost == 0 for p in plotted) else "log",
            **({"linthresh": smallest} if any(p.cost == 0 for p in plotted) else {}),
        )
    axes.set_xlabel(title)
    datasets = len(primary(board))
    axes.set_ylabel(f"mean score over {datasets} datasets" if datasets > 1 else "score")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _join_scaled(axes: Any, board: Board, plotted: Mapping[str, Point]) -> None:
    """A line through the points of one delta at several factors (`scale`)."""
    for group in scaled_alike(board.rows):
        line = [plotted[row.id] for row in group if row.id in plotted]
        axes.plot([p.cost for p in line], [p.quality for p in line], color="#9a9fa8", linewidth=1)


def _curves(lines: Sequence[Any], rows: Sequence[AnyRow], title: str) -> Figure:
    figure, axes = _new(8, 4.5)
    colours = {row.id: COLOURS[i] for i, row in enumerate(rows)}
    labelled: set[str] = set()
    for line in lines:
        label = None if line.row in labelled else _plain(line.row)
        labelled.add(line.row)
        steps, dev = [p.step for p in line.points], [p.dev for p in line.points]
        marker = "o" if len(steps) == 1 else ""
        axes.plot(steps, dev, color=colours[line.row], marker=marker, alpha=0.85, label=label)
    axes.set_title(_plain(title), fontsize=11)
    axes.set_xlabel("step")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _amounts(sizes: Mapping[str, Sequence[Amount]], title: str) -> Figure:
    """Mean scores over the number of training rows; a band from the lowest seed to the highest."""
    figure, axes = _new(8, 4.5)
    for colour, (name, curve) in zip(COLOURS, sizes.items(), strict=False):
        numbers, means = [point.n for point in curve], [point.mean for point in curve]
        axes.plot(numbers, means, marker="o", color=colour, label=_plain(name))
        lows, highs = [point.low for point in curve], [point.high for point in curve]
        axes.fill_between(numbers, lows, highs, color=colour, alpha=0.12, linewidth=0)
    axes.set_xscale("log")
    ticks = sorted({point.n for curve in sizes.values() for point in curve})
    axes.set_xticks(ticks, [f"{n:,}" for n in ticks], fontsize=8)
    axes.set_xticks([], minor=True)
    axes.set_title(_plain(title), fontsize=11)
    axes.set_xlabel("rows of train; the band spans the seeds")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure
