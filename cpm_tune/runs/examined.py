"""What is looked at after training: shortcuts, and rows of test that other splits have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cpm_tune.analysis.overlap import Overlap, overlaps_of_test
from cpm_tune.analysis.shortcuts import shortcut_controls
from cpm_tune.common.progress import working
from cpm_tune.data.store import Split
from cpm_tune.schema.record import OverlapRecord, RunRecord
from cpm_tune.systems.predictions import (
    Predictions,
    from_predictions,
    recorded_predictions,
    score_part,
)
from cpm_tune.task import Task

_COUNTED = ("exact", "normalised", "near", "shared")


def examined(record: RunRecord, task: Task, splits: Mapping[str, Split], folder: Path) -> RunRecord:
    """The record of a trained run with shortcut controls and overlaps; `folder` has its
    predictions."""
    with working("scoring shortcuts"):
        shortcuts = shortcut_controls(task, splits["train"], splits["test"])
    with working("comparing the rows of splits"):
        overlaps = overlaps_of_test(task, splits)
    scored = None
    if record.labelled and from_predictions(record.ranks_by):
        scored = recorded_predictions(folder, record, "test")
    recorded = {
        name: _record(overlap, record.ranks_by, scored) for name, overlap in overlaps.items()
    }
    controls = {**record.controls, **shortcuts}
    return record.model_copy(update={"controls": controls, "overlap": recorded})


def _record(overlap: Overlap, metric: str, scored: Predictions | None) -> OverlapRecord:
    rows = sorted(overlap.any)
    made = OverlapRecord(**_counts(overlap), rows=OverlapRecord.ranges(rows))
    if scored is None:
        return made
    parts = made.parts(len(scored)).items()
    scores = {part: score_part(metric, scored, numbers) for part, numbers in parts}
    return made.model_copy(update=scores)


def _counts(overlap: Overlap) -> dict[str, int]:
    counts = {name: len(getattr(overlap, name)) for name in _COUNTED}
    compared = {"n": overlap.n, "n_other": overlap.n_other, "n_near": overlap.n_near}
    return {**compared, **counts}
