"""A Board as one self-contained HTML page: nothing is fetched, the data is embedded as JSON.

Texts of records reach the page as text only: in the JSON every `<` is escaped, and the scripts set
it by textContent. The page's own policy lets no script run but the one with the right hash.
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
from cpm_tune.common.reading import parse_json
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.board import Board
from cpm_tune.leaderboard.results import AnyStored, Results
from cpm_tune.leaderboard.texts import Texts
from cpm_tune.metrics import get_metric
from cpm_tune.schema.record import AnyRecord, RunRecord
from cpm_tune.systems.predictions import FOREIGN

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
    """The page. At most `per_run` predictions of each run are embedded, fewer if all runs together
    would have more than IN_ALL, and with them the texts of their examples, if given."""
    return assembled(page_data(board, results, per_run, texts))


def assembled(embedded: Mapping[str, Any], *, served: bool = False) -> str:
    """The page of this data. `served`: with the part that follows its server (`serve/`), the only
    place that its policy lets it ask."""
    names = (*SCRIPTS, "live.js") if served else SCRIPTS
    data = json.dumps(embedded, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    script = "(() => {\n'use strict';\n" + "".join(map(_part, names)) + "})();\n"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "@@STYLE@@": _part("style.css") + (_part("live.css") if served else ""),
        "@@HASH@@": f"sha256-{digest}",
        "@@SCRIPT@@": script,
        "@@DATA@@": _embeddable(data),
    }
    page = _part("page.html")
    if served:
        page = page.replace("default-src 'none';", "default-src 'none'; connect-src 'self';", 1)
    pieces = []
    for mark, text in sorted(parts.items(), key=lambda pair: page.index(pair[0])):
        before, _, page = page.partition(mark)
        pieces += [before, text]
    return "".join((*pieces, page))


def _embeddable(data: str) -> str:
    """JSON that may stand in a script element of a UTF-8 file: half a surrogate pair is escaped."""
    data = data.replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return data.encode(errors="backslashreplace").decode()


def _part(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


def embedded_runs(results: Results, per_run: int = PER_RUN) -> tuple[list[AnyStored], int]:
    """The runs and systems whose predictions are embedded, and how many of each."""
    embedded: list[AnyStored] = [*results.runs, *results.systems]
    return embedded, min(per_run, IN_ALL // max(1, len(embedded)))


def page_data(
    board: Board, results: Results, per_run: int = PER_RUN, texts: Texts | None = None
) -> dict[str, Any]:
    """The page's data: the board, each run's learning curve and first test predictions, and the
    texts of their examples.

    Many cells have equal settings, so cells have the number of theirs in `settings`.
    """
    dumped = board.model_dump(mode="json", exclude={"columns": {"__all__": {"suites"}}})
    settings: dict[str, int] = {}
    for row in dumped["rows"]:
        for cell in row["cells"].values():
            key = json.dumps(cell["settings"], sort_keys=True)
            cell["settings"] = settings.setdefault(key, len(settings))
            _shorten(cell)
    runs, per_run = embedded_runs(results, per_run)
    texts = Texts() if texts is None else texts
    return {
        "board": dumped,
        "settings": [json.loads(key) for key in settings],
        "curves": {run.record.run_id: c for run in runs if (c := _curve(run.record))},
        "predictions": {r.record.run_id: list(_predictions(r, per_run, texts)) for r in runs},
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


def _predictions(run: AnyStored, most: int, texts: Texts) -> Iterator[dict[str, Any]]:
    """The first predictions of a run's test file; a note names lines that cannot be read. `row` is
    the number of the example in the run's texts. None, and a note, if the file is not the one that
    the record has."""
    name = predictions_file("test")
    path, wanted = run.folder / name, run.record.predictions.get(name)
    try:
        if wanted is not None and file_sha256(path) != wanted:
            texts.notes.append(f"{path}: not shown, its sha256 is not the record's.")
            return
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(islice(file, most)):
                try:
                    values = parse_json(line)
                    if not isinstance(values, dict) or "id" not in values:
                        raise ValueError("no object with an id")
                except ValueError as error:
                    texts.notes.append(f"{path}:{number + 1}: not shown ({error}).")
                    continue
                shown = _prediction(values, run.record.ranks_by)
                row = texts.row(run.record.run_id, number, shown["id"])
                yield shown if row is None else {**shown, "row": row}
    except (OSError, UnicodeDecodeError) as error:
        if wanted is not None:
            reason = error.strerror if isinstance(error, OSError) else error
            texts.notes.append(f"{path}: not shown ({reason}).")


def _prediction(line: Mapping[str, Any], metric: str) -> dict[str, Any]:
    prediction, target = line.get("prediction"), line.get("target")
    shown = {
        "id": str(line["id"]),
        "prediction": _bounded(prediction),
        "target": _bounded(target),
        "right": is_right(metric, prediction, target),
    }
    scores = line.get("scores")
    if isinstance(scores, list) and all(isinstance(s, int | float) for s in scores):
        shown["scores"] = [round(s, 4) for s in scores[:OPTIONS]]
    if prediction is None and isinstance(line.get("text"), str):
        shown["text"] = line["text"][:TEXT]
    return shown


def _bounded(value: Any) -> Any:
    """A value of a prediction, its text cut to a bounded length."""
    if isinstance(value, str):
        return value if len(value) <= TEXT else value[:TEXT] + "…"
    text = json.dumps(value, ensure_ascii=False)
    return value if len(text) <= TEXT else text[:TEXT] + "…"


def is_right(metric: str, prediction: Any, target: Any) -> bool | None:
    """Whether a prediction is right by the ranking metric; None if it does not judge single
    examples, or this prediction is not of its kind. No prediction is wrong by any metric."""
    if prediction is None:
        return False
    try:
        right = get_metric(metric).right
        return None if right is None else bool(right(prediction, target))
    except (UserError, *FOREIGN):  # a metric of another version, or another system's file
        return None
