"""A run's predictions files: read, checked, scored. Nothing here needs the data or a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpm_tune.data.readers import json_lines
from cpm_tune.errors import UserError
from cpm_tune.metrics import get_metric
from cpm_tune.schema.record import ScoreRecord
from cpm_tune.task import BadRow


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
        raise UserError(f"{path}: holds no predictions.")
    ids, predictions, targets = zip(*lines, strict=True)
    return Predictions(ids, predictions, targets)


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
    return get_metric(name).prediction != "nll"


def score_predictions(name: str, found: Predictions) -> ScoreRecord:
    """A metric on predictions; raise UserError where they are not what the metric takes."""
    metric = get_metric(name)
    try:
        score = metric.score(found.predictions, found.targets)
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise UserError(
            f"the predictions are not what {name} takes, {metric.prediction} ({error})."
        ) from error
    return ScoreRecord(
        **vars(score), signature=metric.signature, higher_is_better=metric.higher_is_better
    )
