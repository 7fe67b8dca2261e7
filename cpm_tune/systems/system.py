"""Scores an outside system's predictions into a record of the results folder."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from cpm_tune.common.environment import package_versions
from cpm_tune.common.folders import (
    RECORD,
    disk_trouble,
    is_complete,
    predictions_file,
    remove,
    run_folder,
    run_lock,
)
from cpm_tune.common.paths import file_sha256
from cpm_tune.common.writing import write_atomically
from cpm_tune.data.splits import SplitFile, data_folder, edition, find_splits, is_sample
from cpm_tune.errors import UserError
from cpm_tune.schema.record import SplitRecord, SystemRecord, read_any_record, write_record
from cpm_tune.schema.spec import DataSpec, SystemSpec
from cpm_tune.systems.predictions import (
    Predictions,
    from_predictions,
    predictions_text,
    score_predictions,
)
from cpm_tune.systems.submission import read_answers
from cpm_tune.task import SPLITS, Task
from cpm_tune.task.registry import load_task


class TakenError(UserError):
    """The name and seed have other predictions."""


@dataclass(frozen=True)
class ScoredSystem:
    """A system's record, its folder, and whether it already existed."""

    record: SystemRecord
    folder: Path
    reused: bool


def score_system(
    task: str,
    predictions: Path,
    name: str,
    *,
    data: Path | None = None,
    split: str = "test",
    seed: int = 1,
    out: Path = Path("results"),
    include: Sequence[Path] = (),
    overwrite: bool = False,
) -> ScoredSystem:
    """Score predictions on a labelled split and write a record into `out`.

    The same predictions under the same name are not scored again. Raises UserError for predictions
    that do not fit the data, and for other predictions under a name and seed that are taken (unless
    `overwrite`).
    """
    known = load_task(task, include)
    file = find_splits(known, data_folder(known, data), (split,))[split]
    answers, form = read_answers(known, predictions, file)
    scored = Predictions(
        tuple(answer.id for answer in answers),
        tuple(answer.prediction for answer in answers),
        tuple(answer.target for answer in answers),
    )
    spec = _spec(known, file, name, seed, file_sha256(predictions))
    with run_lock(out, spec.run_id, wait=True):
        others = _same_name(out, spec)
        if (same := out / spec.run_id) in others and not overwrite:
            return ScoredSystem(others[same], same, reused=True)
        if others and not overwrite:
            raise TakenError(
                f"{next(iter(others))}: other predictions of '{name}' with seed {seed} on this "
                "data are there; give --seed N for another run of it, or --overwrite."
            )
        record = _record(known, file, scored, spec, f"{predictions} ({form})")
        with (
            disk_trouble(f"--out {out}", "make room, or choose another path"),
            run_folder(out, spec.run_id) as folder,
        ):
            text = predictions_text(scored.ids, scored.predictions, scored.targets)
            place = folder / predictions_file(split)
            write_atomically(place, text)
            record = record.model_copy(update={"predictions": {place.name: file_sha256(place)}})
            write_record(folder, record)
        for other in others:
            if other != same:
                remove(other)
    return ScoredSystem(record, same, reused=False)


def _spec(task: Task, file: SplitFile, name: str, seed: int, predictions: str) -> SystemSpec:
    sample = is_sample(task, {file.split: file})
    data: dict[str, str | None] = dict.fromkeys(SPLITS)
    data[file.split] = file.sha256
    try:
        return SystemSpec(
            system=name,
            task=task.name,
            task_version=task.version,
            metrics=tuple(metric for metric in task.metrics if from_predictions(metric)),
            data=DataSpec(**data, sample=sample),
            predictions_sha256=predictions,
            seed=seed,
        )
    except ValidationError as error:
        raise UserError(
            f"--name '{name}': expected 1 to 80 characters on one line, without spaces at its ends."
        ) from error


def _same_name(out: Path, spec: SystemSpec) -> dict[Path, SystemRecord]:
    """The existing records of this name, seed and data."""
    records = {}
    for path in sorted(out.glob(f"{spec.task}.*/{RECORD}")):
        try:
            record = read_any_record(path)
        except UserError:  # `leaderboard` and `verify` report it
            continue
        if isinstance(record, SystemRecord) and is_complete(path.parent):
            theirs = record.spec.model_copy(update={"predictions_sha256": spec.predictions_sha256})
            if theirs == spec:
                records[path.parent] = record
    return records


def _record(
    task: Task, file: SplitFile, scored: Predictions, spec: SystemSpec, source: str
) -> SystemRecord:
    n = len(scored)
    note = file.note or task.source.size_note(file.split, n)
    if spec.data.sample:
        note = f"sample data written for this project: not comparable with real {task.name}"
    unread = sum(prediction is None for prediction in scored.predictions)
    size = "" if file.source or spec.data.sample else task.source.size_warning(file.split, n)
    warnings = [warning for warning in (file.warning, size) if warning]
    if unread:
        warnings.append(f"{unread:,} of {len(scored):,} rows have no answer that can be read")
    if spec.predictions_sha256 == file.sha256:
        warnings.append("the predictions are the data file itself with its gold answers")
    skipped = [name for name in task.metrics if name not in spec.metrics]
    if skipped:
        warnings.append(f"{', '.join(skipped)} cannot be computed from predictions")
    split = SplitRecord(
        path=", ".join(map(str, file.paths)),
        sha256=file.sha256,
        n=len(scored),
        n_skipped=0,
        n_truncated=None,
        n_unparsed=unread,
        edition=edition(task, file, n),
    )
    return SystemRecord(
        run_id=spec.run_id,
        spec_sha256=spec.sha256,
        spec=spec,
        ranks_by=task.metrics[0],
        comparable=not note,
        note=note,
        split="dev" if file.split == "dev" else "test",
        source=source,
        data={file.split: split},
        scores={file.split: {name: score_predictions(name, scored) for name in spec.metrics}},
        warnings=warnings,
        predictions={},
        packages=package_versions(),
        scored_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
