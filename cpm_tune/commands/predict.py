"""The command `predict`."""

from __future__ import annotations

from cpm_tune.api import load_run
from cpm_tune.commands.options.runs import Predict
from cpm_tune.common.events import emit
from cpm_tune.schema.record import shown_scores


def run(options: Predict) -> int:
    """Predict a split with a finished run, print its scores and what was written."""
    chosen = options.chosen()
    predicted = load_run(chosen.pop("run")).predict(**chosen)
    emit("scores", split=predicted.split, scores=shown_scores(predicted.scores))
    for name, score in predicted.scores.items():
        print(
            f"{predicted.split} {name} {score.value:.4f}  [{score.low:.4f}, {score.high:.4f}]  "
            f"n={score.n}"
        )
    for warning in predicted.warnings:
        print(f"warning    {warning}")
    print(f"written    {', '.join(map(str, predicted.files))}")
    return 0
