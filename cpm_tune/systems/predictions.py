"""A run's predictions files: read, checked, scored. Neither data nor a model is needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpm_tune.common.folders import predictions_file
from cpm_tune.common.paths import file_sha256
from cpm_tune.data.readers import json_lines
from cpm_tune.errors import UserError
from cpm_tune.metrics import Metric, Score, get_metric
from cpm_tune.schema.record import AnyRecord, ScoreRecord
from cpm_tune.task import BadRow

# What a metric raises on predictions that are not of its kind.
FOREIGN = (ValueError, TypeError, AttributeError, KeyError, IndexError, ArithmeticError)


@dataclass(frozen=True)
class Predictions:
    """A split's examples in the order of its file, as the task's metrics take them."""

    ids: tuple[str, ...]
    predictions: tuple[Any, ...]
    targets: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.ids)


def read_predictions(path: Path) -> Predictions:
    """Read predictions.SPLIT.jsonl; raise UserError naming the first line that is wrong."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file.")
    lines = []
    for where, line in json_lines(path):
        if isinstance(line, BadRow):
            raise UserError(line.message)
        if not isinstance(line, dict) or not {"id", "prediction", "target"} <= set(line):
            raise UserError(f"{where}: expected an object with id, prediction and target.")
        lines.append((str(line["id"]), line["prediction"], line["target"]))
    if not lines:
        raise UserError(f"{path}: the file has no predictions.")
    ids, predictions, targets = zip(*lines, strict=True)
    return Predictions(ids, predictions, targets)


def recorded_predictions(folder: Path, record: AnyRecord, split: str) -> Predictions:
    """Read a split's predictions from a run's folder; raise UserError if the file is not the one
    that the record was written with."""
    path = folder / predictions_file(split)
    predictions = read_predictions(path)
    if file_sha256(path) != record.predictions.get(path.name):
        raise UserError(f"{path}: not the predictions of its record; the file was changed.")
    return predictions


def predictions_text(ids: Sequence[str], predictions: Sequence[Any], targets: Sequence[Any]) -> str:
    """The content of a predictions file."""
    names = ("id", "prediction", "target")
    lines = (
        json.dumps(dict(zip(names, line, strict=True)), ensure_ascii=False)
        for line in zip(ids, predictions, targets, strict=True)
    )
    return "".join(line + "\n" for line in lines)


def from_predictions(name: str) -> bool:
    """Whether a metric can be computed from predictions (a likelihood cannot)."""
    return not get_metric(name).kind.likelihood


def score_predictions(name: str, split: Predictions, signature: str = "") -> ScoreRecord:
    """A metric on predictions, in its version of that signature if there is one; raise UserError if
    they are not what the metric takes."""
    metric = get_metric(name).version(signature)
    try:
        score = metric.score(split.predictions, split.targets)
    except FOREIGN as error:
        raise UserError(
            f"the predictions are not what {name} takes: each has to be {metric.kind.prediction}, "
            f"its target {metric.kind.target} ({error})."
        ) from error
    return score_record(metric, score)


def score_part(
    name: str, split: Predictions, numbers: Sequence[int], signature: str = ""
) -> ScoreRecord | None:
    """As `score_predictions`, on some of the rows; None if there are none."""
    if not numbers:
        return None
    some = [
        tuple(values[i] for i in numbers)
        for values in (split.ids, split.predictions, split.targets)
    ]
    return score_predictions(name, Predictions(*some), signature)


def score_record(metric: Metric, score: Score) -> ScoreRecord:
    """A score as it is recorded, with the signature and direction of its metric."""
    return ScoreRecord(
        **vars(score), signature=metric.signature, higher_is_better=metric.higher_is_better
    )
