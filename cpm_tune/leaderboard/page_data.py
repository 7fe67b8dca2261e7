"""The data of the page in parts, each JSON of its own that the browser parses when it is needed.

The part "board" is all that the table draws, so that a page of thousands of rows opens fast; what
another view needs goes into a part of its own. Add a function to PARTS: it becomes the element
`data-NAME` of the page, which scripts read by `part("NAME")` (page/data.js). page/types.d.ts has
the types of all parts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cpm_tune.common.paths import relative
from cpm_tune.errors import escaped
from cpm_tune.leaderboard.board import Board
from cpm_tune.leaderboard.examples import IN_PAGE, Bounds, ordered_runs, run_part, sources_of
from cpm_tune.leaderboard.means import mean, points
from cpm_tune.leaderboard.results import AnyStored, Results
from cpm_tune.leaderboard.texts import Texts, Which, read_texts
from cpm_tune.schema.record import RunRecord

POINTS = 60  # of a learning curve
_DETAILS = {"interval", "runs", "others", "settings", "notes", "cost", "forgetting"} | {
    "missing_folds",
    "not_above",
}


@dataclass(frozen=True)
class Source:
    """What parts are made of. `runs` have a part of their own, with at most `per_run` predictions.
    `folder` is the folder next to the page with these parts; "" if the page has them itself."""

    board: Board
    results: Results
    runs: Sequence[AnyStored] = ()
    per_run: int = 0
    texts: Texts = field(default_factory=Texts)
    bounds: Bounds = IN_PAGE
    include: tuple[Path, ...] = ()
    folder: str = ""


def source_of(
    board: Board,
    results: Results,
    per_run: int | None = None,
    which: Which = "sample",
    data: Path | None = None,
    include: tuple[Path, ...] = (),
    bounds: Bounds = IN_PAGE,
    folder: str = "",
) -> Source:
    """The source of a page: `per_run` predictions of each run, or as many as the bounds allow; see
    `read_texts` for `which` and `data`."""
    runs = ordered_runs(board, results, bounds)
    most = bounds.at_most(runs)
    most = most if per_run is None else min(most, per_run)
    texts = read_texts(runs, most, which, data, include, bounds.examples)
    return Source(board, results, runs, most, texts, bounds, include, folder)


def board_part(source: Source) -> dict[str, Any]:
    """The board without the details of its cells. A cell also has the number of its seeds, the
    score of its zero-shot control (`zero`), and whether a run was cut short (`few`)."""
    records = {run.record.run_id: run.record for run in source.results.runs}
    dumped = source.board.model_dump(
        mode="json",
        exclude={
            "columns": {"__all__": {"suites", "other_texts", "repeats"}},
            "rows": {"__all__": {"cells": {"__all__": _DETAILS}}},
        },
    )
    for row, shown in zip(source.board.rows, dumped["rows"], strict=True):
        for name, cell in row.cells.items():
            runs = [records[run.run_id] for run in cell.runs if run.run_id in records]
            shown["cells"][name] |= {"n": len(cell.runs), "zero": _zero_shot(runs)}
            if any(map(_cut_short, runs)):
                shown["cells"][name]["few"] = True
    dumped["left_out"] = [relative(text, source.results.folders) for text in dumped["left_out"]]
    _shorten(dumped)
    return dumped


def _zero_shot(runs: Sequence[RunRecord]) -> float | None:
    """The mean zero-shot score of a cell's runs, in the unit that is shown."""
    scored = [run.controls["zero-shot"].value for run in runs if "zero-shot" in run.controls]
    return points(runs[0].ranks_by) * mean(scored) if scored else None


def _cut_short(run: RunRecord) -> bool:
    """Whether train.max_steps ended a training before it had seen every row of train once."""
    recipe, training, train = run.spec.recipe, run.training, run.data.get("train")
    if recipe is None or recipe.max_steps is None or training is None or train is None:
        return False
    return training.steps * recipe.batch_size < recipe.rows_used(train.n)


def details_part(source: Source) -> dict[str, Any]:
    """What a cell is made of, by row and column: runs, other metrics, notes, cost, settings. Many
    cells have equal settings, so cells have the number of theirs in `settings`. `trained_on`: the
    rows of train that were used."""
    settings: dict[str, int] = {}
    rows: dict[str, Any] = {}
    records = {run.record.run_id: run.record for run in source.results.runs}
    for row in source.board.rows:
        cells = rows[row.id] = {}
        for name, cell in row.cells.items():
            shown = cell.model_dump(mode="json", include=_DETAILS)
            key = json.dumps(shown["settings"], sort_keys=True)
            cells[name] = {**shown, "settings": settings.setdefault(key, len(settings))}
            runs = [records[run.run_id] for run in cell.runs if run.run_id in records]
            if trained_on := {n for run in runs if (n := _trained_on(run))}:
                cells[name]["trained_on"] = max(trained_on)
    _shorten(rows)
    return {"rows": rows, "settings": [json.loads(key) for key in settings]}


def _trained_on(run: RunRecord) -> int:
    """The rows of train that a run used; 0 if it trained on none."""
    recipe, train = run.spec.recipe, run.data.get("train")
    return 0 if recipe is None or train is None else recipe.rows_used(train.n)


def curves_part(source: Source) -> dict[str, Any]:
    """Each run's learning curve, thinned to POINTS."""
    runs = source.results.runs
    return {run.record.run_id: curve for run in runs if (curve := _curve(run.record))}


def _curve(record: RunRecord) -> dict[str, list[float]]:
    if record.training is None or not record.training.curve:
        return {}
    curve = thinned(record.training.curve)
    return {
        "step": [point.step for point in curve],
        "dev": [round(point.dev, 5) for point in curve],
        "loss": [round(point.loss, 5) for point in curve],
    }


def thinned(points: Sequence[Any], most: int = POINTS) -> list[Any]:
    """At most `most` of the points, evenly, first and last among them."""
    n = len(points)
    if n <= most:
        return list(points)
    return [points[round(i * (n - 1) / (most - 1))] for i in range(most)]


def runs_part(source: Source) -> dict[str, Any]:
    """The names of the runs' own parts by run, and the folder that they are in."""
    names = {run.record.run_id: part_name(run.record.run_id) for run in source.runs}
    return {"folder": source.folder, "of": names}


def part_name(run_id: str) -> str:
    """The name of a run's own part: its id may have any letters."""
    return f"run-{hashlib.sha256(run_id.encode()).hexdigest()[:16]}"


def sources_part(source: Source) -> dict[str, Any]:
    """Where the data sets of the columns are from, by task."""
    return dict(sources_of((column.task for column in source.board.columns), source.include))


def lazy_parts(source: Source) -> Iterator[tuple[str, Any]]:
    """The parts that are read one by one: each run's own, and the sets of rows that runs share."""
    for run in source.runs:
        yield part_name(run.record.run_id), run_part_of(source, run)
    yield from ((name, source.texts.part(i)) for i, name in enumerate(source.texts.names))


def lazy_part(source: Source, name: str) -> Any:
    """The lazy part of that name; None if there is none."""
    if name in source.texts.names:
        return source.texts.part(source.texts.names.index(name))
    named = (run for run in source.runs if part_name(run.record.run_id) == name)
    run = next(named, None)
    return None if run is None else run_part_of(source, run)


def run_part_of(source: Source, run: AnyStored) -> dict[str, Any]:
    """A run's own part."""
    return run_part(run, source.per_run, source.bounds, source.texts, source.include)


PARTS: Mapping[str, Callable[[Source], Any]] = {
    "board": board_part,
    "details": details_part,
    "curves": curves_part,
    "runs": runs_part,
    "sources": sources_part,
}


def page_parts(source: Source) -> dict[str, Any]:
    """All parts of the page's data but the lazy ones, by name."""
    return {name: legible(make(source)) for name, make in PARTS.items()}


def legible(value: Any) -> Any:
    """A part whose names show what is in them, as tables in a terminal do: control characters and
    those that turn the direction of writing as escapes, blank ones in quotation marks."""
    if isinstance(value, str):
        return escaped(value, keep="\n\t") if value.strip() or not value else f"'{escaped(value)}'"
    if isinstance(value, dict):
        return {legible(key): legible(one) for key, one in value.items()}
    return [legible(one) for one in value] if isinstance(value, list) else value


def _shorten(value: Any) -> None:
    """Round the floats of nested lists and objects in place; the page shows two decimals."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in list(items):
        if isinstance(one, float):
            value[key] = round(one, 5)
        elif isinstance(one, dict | list):
            _shorten(one)
