"""The examples of the page: the first predictions of each run, and which of them are right."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from cpm_tune.common.folders import predictions_file
from cpm_tune.common.paths import file_sha256
from cpm_tune.common.reading import parse_json
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.results import AnyStored, Results
from cpm_tune.leaderboard.texts import Texts
from cpm_tune.metrics import get_metric
from cpm_tune.systems.predictions import FOREIGN

PER_RUN = 20  # predictions embedded of a run
IN_ALL = 30_000  # and of all runs together
TEXT = 300  # characters of a text
OPTIONS = 40  # scores of an example


def embedded_runs(results: Results, per_run: int = PER_RUN) -> tuple[list[AnyStored], int]:
    """The runs and systems whose predictions are embedded, and how many of each."""
    embedded: list[AnyStored] = [*results.runs, *results.systems]
    return embedded, min(per_run, IN_ALL // max(1, len(embedded)))


def predictions(results: Results, per_run: int, texts: Texts) -> dict[str, list[dict[str, Any]]]:
    """The first predictions of each run by its id; `texts` gets a note for what is not shown."""
    runs, per_run = embedded_runs(results, per_run)
    return {run.record.run_id: list(_predictions(run, per_run, texts)) for run in runs}


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
