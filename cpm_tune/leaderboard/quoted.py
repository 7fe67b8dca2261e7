"""Quoted rows and indices of a board: what publications say, and how rows stand against them."""

from __future__ import annotations

from collections.abc import Mapping

from cpm_tune.leaderboard.board import Board, Column, Index, IndexRule, QuotedRow, QuotedScore, Row
from cpm_tune.leaderboard.hierarchy import Hierarchy
from cpm_tune.leaderboard.indices import (
    BASELINE,
    LITE,
    NORMALISED_MEAN,
    RULES,
    Place,
    missing,
    normalised_mean,
    ratio_of_sums,
)
from cpm_tune.leaderboard.published import Figure, Published, baseline, read_published


def add_quoted(board: Board, hierarchy: Hierarchy) -> None:
    """Add the published rows. Their scores stand in the first official column of their dataset;
    where there is none, in a column of their own, which no measured row enters."""
    published = read_published()
    tasks = {task for file in published.values() for row in file.rows for task in row.scores}
    where = _official(board)
    for task in sorted(tasks - set(where)):
        column = _quoted_column(task, published, hierarchy)
        board.columns.append(column)
        where[task] = column.id
    board.columns.sort(key=lambda c: hierarchy.order(c.task))
    rows: dict[tuple[str, str], QuotedRow] = {}
    for stem, file in published.items():
        board.sources[stem] = ". ".join(filter(None, (file.source.title, file.source.paper)))
        for said in file.rows:
            row = rows.setdefault(
                (said.name, said.setting),
                QuotedRow(
                    id=f"quoted: {said.name}, {said.setting}",
                    name=said.name,
                    setting=said.setting,
                    cells={},
                    indices={},
                ),
            )
            for task, figure in said.scores.items():
                row.cells[where[task]] = QuotedScore(source=stem, **figure.model_dump())
    board.quoted = sorted(rows.values(), key=lambda row: (-len(row.cells), row.id))


def _official(board: Board) -> dict[str, str]:
    """The first official column of each dataset: of most runs, as columns are ordered."""
    found: dict[str, str] = {}
    for column in board.columns:
        if column.official:
            found.setdefault(column.task, column.id)
    return found


def _quoted_column(task: str, published: Mapping[str, Published], hierarchy: Hierarchy) -> Column:
    figure = next(r.scores[task] for f in published.values() for r in f.rows if task in r.scores)
    place = hierarchy.dataset(task)
    return Column(
        id=f"{task}#quoted",
        task=task,
        version=0,
        capability=place.capability,
        kind=place.kind,
        suites=list(place.suites),
        metric=figure.printed,
        signature="as published",
        higher_is_better=True,
        unit="own",
        template="",
        template_version=0,
        dev_sha256=None,
        test_sha256=None,
        n=0,
        official=True,
        notes=["quoted figures only: no run on the official data here"],
        apart=["official data, quoted"],
    )


def add_indices(board: Board, hierarchy: Hierarchy) -> None:
    """Give every row both indices over CUGE lite, against the published baseline.

    A row's score is that of the metric nearest to the published one, in the official column.
    """
    base = baseline(read_published(), BASELINE)
    columns = {c.task: c for c in board.columns if c.id in set(_official(board).values())}
    weights = {task: figure.value for task, figure in base.items()}
    places = {task: Place(*hierarchy.dataset(task)[:2]) for task in base}
    for name, (title, rule) in RULES.items():
        board.indices[name] = IndexRule(
            title=title,
            rule=rule,
            columns={task: columns[task].id if task in columns else None for task in base},
            baseline=f"{BASELINE} ({LITE} board, quoted)",
        )
    for row in board.rows:
        row.indices = _indices(_measured(row, base, columns), weights, places)
    for quoted in board.quoted:
        scores = {
            c.task: quoted.cells[c.id].value for c in columns.values() if c.id in quoted.cells
        }
        quoted.indices = _indices(scores, weights, places)


def _measured(
    row: Row, base: Mapping[str, Figure], columns: Mapping[str, Column]
) -> dict[str, float]:
    scores = {}
    for task, figure in base.items():
        cell = row.cells.get(columns[task].id) if task in columns else None
        if cell is not None:
            same = columns[task].metric == figure.metric
            score = cell.mean if same else cell.others.get(figure.metric)
            if score is not None:
                scores[task] = score
    return scores


def _indices(
    scores: Mapping[str, float], base: Mapping[str, float], places: Mapping[str, Place]
) -> dict[str, Index]:
    lacking = missing(scores, base)
    return {
        name: Index(
            value=normalised_mean(scores, base, places)
            if name == NORMALISED_MEAN
            else ratio_of_sums(scores, base),
            missing=lacking,
        )
        for name in RULES
    }
