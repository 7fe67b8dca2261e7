"""The data of the page in parts, each JSON of its own that the browser parses when it is needed.

The part "board" is all that the table draws, so that a page of thousands of rows opens fast; what
another view needs goes into a part of its own. Add a function to PARTS: it becomes the element
`data-NAME` of the page, which scripts read by `part("NAME")` (page/data.js). page/types.d.ts has
the types of all parts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cpm_tune.leaderboard.board import Board
from cpm_tune.leaderboard.examples import PER_RUN, embedded_runs, predictions
from cpm_tune.leaderboard.means import mean, points
from cpm_tune.leaderboard.results import Results
from cpm_tune.leaderboard.texts import Texts
from cpm_tune.schema.record import AnyRecord, RunRecord

POINTS = 60  # of a learning curve
_DETAILS = {"interval", "runs", "others", "settings", "notes", "cost", "forgetting"}


@dataclass(frozen=True)
class Source:
    """What parts are made of. At most `per_run` predictions of each run are embedded, fewer if all
    runs together would have more than `examples.IN_ALL`."""

    board: Board
    results: Results
    per_run: int = PER_RUN
    texts: Texts = field(default_factory=Texts)


def board_part(source: Source) -> dict[str, Any]:
    """The board without the details of its cells. A cell also has the number of its seeds, the
    score of its zero-shot control (`zero`), and whether a run was cut short (`few`)."""
    records = {run.record.run_id: run.record for run in source.results.runs}
    dumped = source.board.model_dump(
        mode="json",
        exclude={
            "columns": {"__all__": {"suites"}},
            "rows": {"__all__": {"cells": {"__all__": _DETAILS}}},
        },
    )
    for row, shown in zip(source.board.rows, dumped["rows"], strict=True):
        for name, cell in row.cells.items():
            runs = [records[run.run_id] for run in cell.runs if run.run_id in records]
            shown["cells"][name] |= {"n": len(cell.runs), "zero": _zero_shot(runs)}
            if any(map(_cut_short, runs)):
                shown["cells"][name]["few"] = True
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
    cells have equal settings, so cells have the number of theirs in `settings`."""
    settings: dict[str, int] = {}
    rows: dict[str, Any] = {}
    for row in source.board.rows:
        cells = rows[row.id] = {}
        for name, cell in row.cells.items():
            shown = cell.model_dump(mode="json", include=_DETAILS)
            key = json.dumps(shown["settings"], sort_keys=True)
            cells[name] = {**shown, "settings": settings.setdefault(key, len(settings))}
    _shorten(rows)
    return {"rows": rows, "settings": [json.loads(key) for key in settings]}


def curves_part(source: Source) -> dict[str, Any]:
    """Each run's learning curve, thinned to POINTS."""
    runs, _ = embedded_runs(source.results)
    return {run.record.run_id: curve for run in runs if (curve := _curve(run.record))}


def _curve(record: AnyRecord) -> dict[str, list[float]]:
    if not isinstance(record, RunRecord) or record.training is None or not record.training.curve:
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


def predictions_part(source: Source) -> dict[str, Any]:
    """The first test predictions of each run, by its id."""
    return predictions(source.results, source.per_run, source.texts)


def texts_part(source: Source) -> dict[str, Any]:
    """The texts of the predictions' examples: sets of rows, and which set a run has."""
    return {"sets": source.texts.sets, "of": source.texts.of}


PARTS: Mapping[str, Callable[[Source], Any]] = {
    "board": board_part,
    "details": details_part,
    "curves": curves_part,
    "predictions": predictions_part,
    "texts": texts_part,
}


def page_parts(source: Source) -> dict[str, Any]:
    """All parts of the page's data, by name."""
    return {name: make(source) for name, make in PARTS.items()}


def _shorten(value: Any) -> None:
    """Round the floats of nested lists and objects in place; the page shows two decimals."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in list(items):
        if isinstance(one, float):
            value[key] = round(one, 5)
        elif isinstance(one, dict | list):
            _shorten(one)
