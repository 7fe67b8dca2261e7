"""A Board as one self-contained HTML page: nothing is fetched, the data is embedded as JSON.

What records say reaches the page as text only: in the JSON every `<` is escaped, and the scripts
set it by textContent. The page's own policy lets no script run but the one with the right hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from cpm_tune.common.folders import predictions_file
from cpm_tune.common.paths import file_sha256
from cpm_tune.leaderboard.board import Board
from cpm_tune.leaderboard.results import Found, Results, System
from cpm_tune.leaderboard.texts import Texts
from cpm_tune.metrics.equations import right as comes_out
from cpm_tune.schema.record import AnyRecord, RunRecord

PAGE = Path(__file__).with_name("page")
SCRIPTS = ("base.js", "text.js", "values.js", "table.js", "figures.js", "cell.js", "main.js")
PER_RUN = 20  # predictions embedded of a run
IN_ALL = 30_000  # and of all runs together
TEXT = 300  # characters of a text
OPTIONS = 40  # scores of an example
POINTS = 60  # of a learning curve


def as_html(
    board: Board, results: Results, per_run: int = PER_RUN, texts: Texts | None = None
) -> str:
    """The page. Of each run at most `per_run` predictions are embedded, fewer where all runs
    together would have more than IN_ALL, and beside them the texts of their examples, if given."""
    said = page_data(board, results, per_run, texts)
    data = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
    script = "(() => {\n'use strict';\n" + "".join(map(_part, SCRIPTS)) + "})();\n"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "@@STYLE@@": _part("style.css"),
        "@@HASH@@": f"sha256-{digest}",
        "@@SCRIPT@@": script,
        "@@DATA@@": data.replace("<", "\\u003c").replace("\u2028", "\\u2028"),
    }
    page = _part("page.html")
    made = []
    for mark, text in sorted(parts.items(), key=lambda pair: page.index(pair[0])):
        before, _, page = page.partition(mark)
        made += [before, text]
    return "".join((*made, page))


def _part(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


def told(
    board: Board, results: Results, per_run: int = PER_RUN
) -> tuple[list[Found | System], int]:
    """The runs and systems whose predictions are embedded, and how many of each."""
    shown = {run.run_id for row in board.rows for cell in row.cells.values() for run in cell.runs}
    runs = [found for found in results.runs if found.record.run_id in shown]
    found: list[Found | System] = [*runs, *results.systems]
    return found, min(per_run, IN_ALL // max(1, len(found)))


def page_data(
    board: Board, results: Results, per_run: int = PER_RUN, texts: Texts | None = None
) -> dict[str, Any]:
    """What the page is given: the board, each run's learning curve and first test predictions, and
    the texts of their examples.

    Settings of cells are many and equal, so cells hold the number of theirs in `settings`.
    """
    said = board.model_dump(mode="json", exclude={"columns": {"__all__": {"suites"}}})
    settings: dict[str, int] = {}
    for row in said["rows"]:
        for cell in row["cells"].values():
            key = json.dumps(cell["settings"], sort_keys=True)
            cell["settings"] = settings.setdefault(key, len(settings))
            _shorten(cell)
    of, per_run = told(board, results, per_run)
    texts = Texts() if texts is None else texts
    return {
        "board": said,
        "settings": [json.loads(key) for key in settings],
        "curves": {f.record.run_id: c for f in of if (c := _curve(f.record))},
        "predictions": {f.record.run_id: list(_predictions(f, per_run, texts)) for f in of},
        "texts": {"sets": texts.sets, "of": texts.of},
    }


def _shorten(value: Any) -> None:
    """Round the floats of nested lists and objects in place; the page shows two decimals."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in list(items):
        if isinstance(one, float):
            value[key] = round(one, 5)
        elif isinstance(one, dict | list):
            _shorten(one)


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


def _predictions(found: Found | System, most: int, texts: Texts) -> Iterator[dict[str, Any]]:
    """The first predictions of a run's test file; lines that cannot be read are passed over. `row`
    is the number of the example in the run's texts. None, and a note, if the file is not the one
    that the record has."""
    name = predictions_file("test")
    path, wanted = found.folder / name, found.record.predictions.get(name)
    try:
        if wanted is not None and file_sha256(path) != wanted:
            texts.notes.append(f"{path}: not shown, its sha256 is not the record's.")
            return
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(islice(file, most)):
                try:
                    said = json.loads(line)
                except ValueError:
                    continue
                if isinstance(said, dict) and "id" in said:
                    made = _prediction(said, found.record.ranks_by)
                    row = texts.row(found.record.run_id, number, made["id"])
                    yield made if row is None else {**made, "row": row}
    except (OSError, UnicodeDecodeError) as error:
        if wanted is not None:
            texts.notes.append(f"{path}: not shown ({error}).")


def _prediction(said: Mapping[str, Any], metric: str) -> dict[str, Any]:
    prediction, target = said.get("prediction"), said.get("target")
    made = {
        "id": str(said["id"]),
        "prediction": _bounded(prediction),
        "target": _bounded(target),
        "right": right(metric, prediction, target),
    }
    scores = said.get("scores")
    if isinstance(scores, list) and all(isinstance(s, int | float) for s in scores):
        made["scores"] = [round(s, 4) for s in scores[:OPTIONS]]
    if prediction is None and isinstance(said.get("text"), str):
        made["text"] = said["text"][:TEXT]
    return made


def _bounded(value: Any) -> Any:
    """A value of a prediction, its text cut to a bounded length."""
    if isinstance(value, str):
        return value if len(value) <= TEXT else value[:TEXT] + "…"
    said = json.dumps(value, ensure_ascii=False)
    return value if len(said) <= TEXT else said[:TEXT] + "…"


def right(metric: str, prediction: Any, target: Any) -> bool | None:
    """Whether a prediction is right, where the ranking metric says right or wrong of an example;
    None where it grades (overlap, BLEU) or counts parts (spans, edits)."""
    if prediction is None:
        return False
    if metric == "equation_accuracy":
        return comes_out(prediction, target) if isinstance(prediction, str) else None
    if metric == "exact_match" and isinstance(target, list):
        return prediction in target
    if metric.startswith("accuracy_at_") and isinstance(prediction, list):
        golds = target if isinstance(target, list) else [target]
        return any(p in golds for p in prediction[: int(metric.rsplit("_", 1)[1])])
    if metric in ("accuracy", "exact_match", "f1", "macro_f1", "relation_f1"):
        return bool(prediction == target)
    return None
