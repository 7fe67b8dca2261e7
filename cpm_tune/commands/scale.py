"""The command `scale`: runs of their own with a run's delta scaled back towards zero."""

from __future__ import annotations

from cpm_tune.commands.options.runs import Scale
from cpm_tune.common.events import emit
from cpm_tune.runs.scaled import scaled_run
from cpm_tune.schema.record import shown_scores


def run(options: Scale) -> int:
    """Score a run's delta at each factor; print the scores and where the records are."""
    for factor in dict.fromkeys(options.by):
        outcome = scaled_run(
            options.run,
            factor,
            data=options.data,
            out=options.out,
            backbone=options.backbone,
            include=options.include,
            overwrite=options.overwrite,
        )
        made = outcome.record
        split = "test" if made.labelled else "dev"
        score = made.scores[split][made.ranks_by]
        there = "already exists" if outcome.reused else "written"
        print(
            f"{factor:g}: {split} {made.ranks_by} {score.value:.4f}  "
            f"[{score.low:.4f}, {score.high:.4f}]  {outcome.folder}  {there}"
        )
        emit(
            "run",
            id=made.run_id,
            folder=outcome.folder,
            existed=outcome.reused,
            metric=made.ranks_by,
            scores={name: shown_scores(scores) for name, scores in made.scores.items()},
            warnings=list(made.warnings),
        )
    return 0
