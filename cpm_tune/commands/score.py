"""The command `score`."""

from __future__ import annotations

from cpm_tune.commands.options.runs import Score
from cpm_tune.common.events import emit
from cpm_tune.schema.record import shown_scores
from cpm_tune.systems.system import score_system


def run(options: Score) -> int:
    """Score a system's predictions, print its scores and where the record is."""
    scored = score_system(**options.chosen())
    record = scored.record
    emit("scores", split=record.split, scores=shown_scores(record.scores[record.split]))
    for name, score in record.scores[record.split].items():
        print(
            f"{record.split} {name} {score.value:.4f}  [{score.low:.4f}, {score.high:.4f}]  "
            f"n={score.n}"
        )
    for warning in (*([record.note] if record.note else []), *record.warnings):
        print(f"warning    {warning}")
    print(f"{'already exists' if scored.reused else 'written'}    {scored.folder}")
    return 0
