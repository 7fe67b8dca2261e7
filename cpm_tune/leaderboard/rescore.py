"""Recomputes every metric of a results folder from the predictions that its runs left."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cpm_tune.common.folders import RECORD, disk_trouble, predictions_file, run_lock
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.verify import differing, overlap_scores, score_now
from cpm_tune.schema.record import (
    AnyRecord,
    ControlRecord,
    EarlierScore,
    OverlapRecord,
    RunRecord,
    ScoreRecord,
    read_any_record,
    write_record,
)
from cpm_tune.schema.walk import iter_records
from cpm_tune.systems.predictions import (
    Predictions,
    from_predictions,
    recorded_predictions,
    score_part,
)


@dataclass(frozen=True)
class Change:
    """A recorded score, and what its metric gives now. `part`: of the rows that test shares with
    another split, or of the rest ("train", "among"); () for all rows."""

    run_id: str
    split: str
    metric: str
    before: ScoreRecord
    now: ScoreRecord
    part: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The metric, and which rows it is of."""
        if not self.part:
            return self.metric
        other, part = self.part
        return f"{self.metric}, {'rows of' if part == 'among' else 'without rows of'} {other}"


@dataclass(frozen=True)
class Rescored:
    """What rescoring found: changes, what could not be rescored, and how many runs were read."""

    changes: tuple[Change, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    n: int


def rescore_results(folder: Path, *, write: bool = False) -> Rescored:
    """Recompute the metrics of every finished record below a folder.

    With `write`, records get the new scores, each atomically, and keep the old ones in
    `earlier_scores`; zero-shot and random-backbone controls follow the runs that they are. A run
    whose predictions are not those of its record is a fault and stays as it is. Raises UserError if
    there is no folder.
    """
    changes: list[Change] = []
    faults: list[str] = []
    notes: list[str] = []
    updated: dict[Path, AnyRecord] = {}
    for place, record in iter_records(folder, faults):
        try:
            of_run = list(_changes(place, record))
        except UserError as error:
            faults.append(str(error))
            continue
        changes += of_run
        notes += _not_rescored(record, of_run)
        updated[place] = _with(record, of_run)
    if write:
        _write(updated)
    return Rescored(tuple(changes), tuple(faults), tuple(dict.fromkeys(notes)), len(updated))


def _changes(folder: Path, record: AnyRecord) -> Iterator[Change]:
    for split, scores in record.scores.items():
        predictions = recorded_predictions(folder, record, split)
        if split in record.data and record.data[split].n != len(predictions):
            raise UserError(
                f"{folder / predictions_file(split)}: {len(predictions):,} rows, the record says "
                f"{record.data[split].n:,}."
            )
        for name, before in scores.items():
            try:
                now = score_now(name, before, predictions)
            except UserError as error:
                raise UserError(f"{folder}: {split} {name}: {error}") from error
            if differing(before, now):
                yield Change(record.run_id, split, name, before, now)
        if split == "test" and isinstance(record, RunRecord):
            yield from _changed_parts(record, predictions)


def _changed_parts(record: RunRecord, predictions: Predictions) -> Iterator[Change]:
    """Changes of the scores on rows that test shares, and on the rest."""
    name = record.ranks_by
    for other, part, before, numbers in overlap_scores(record, len(predictions)):
        now = score_part(name, predictions, numbers)
        if now is not None and differing(before, now):
            yield Change(record.run_id, "test", name, before, now, (other, part))


def _not_rescored(record: AnyRecord, changes: list[Change]) -> Iterator[str]:
    names = {name for scores in record.scores.values() for name in scores}
    fixed = sorted(name for name in names if not from_predictions(name))
    if fixed:
        yield f"{', '.join(fixed)} cannot be computed from predictions and stays as it is"
    ranked = any((c.split, c.metric) == ("test", record.ranks_by) for c in changes)
    if (
        ranked
        and isinstance(record, RunRecord)
        and any(_unknown(o) for o in record.overlap.values())
    ):
        yield (
            "scores with and without rows that splits share need the data in records without "
            "overlap.rows and stay as they are; rerun with --overwrite"
        )
    if ranked and isinstance(record, RunRecord) and "majority" in record.controls:
        yield "the majority control needs the data and stays as it is; rerun with --overwrite"


def _unknown(overlap: OverlapRecord) -> bool:
    """Whether a part of the rows has a score, and it is not recorded which rows."""
    return not overlap.rows and overlap.among is not None


def _with(record: AnyRecord, changes: list[Change]) -> AnyRecord:
    if not changes:
        return record
    scores = {split: dict(by_metric) for split, by_metric in record.scores.items()}
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    earlier = list(record.earlier_scores)
    overlap = dict(record.overlap) if isinstance(record, RunRecord) else {}
    for change in changes:
        if change.part:
            other, part = change.part
            overlap[other] = overlap[other].model_copy(update={part: change.now})
        else:
            scores[change.split][change.metric] = change.now
        earlier.append(
            EarlierScore(
                split=change.split, metric=change.shown, score=change.before, replaced_at=at
            )
        )
    update = {"scores": scores, "earlier_scores": earlier}
    update |= {"overlap": overlap} if overlap else {}
    return record.model_copy(update=update)


def _write(updated: dict[Path, AnyRecord]) -> None:
    """Write what changed; a control that is a run of this folder gets that run's new score."""
    tests = {
        record.run_id: record.test
        for record in updated.values()
        if "test" in record.scores and record.ranks_by in record.scores["test"]
    }
    for folder, record in updated.items():
        if isinstance(record, RunRecord):
            controls = {name: _control(each, tests) for name, each in record.controls.items()}
            record = record.model_copy(update={"controls": controls})
        with run_lock(folder.parent, record.run_id, wait=True):
            if record != read_any_record(folder / RECORD):
                with disk_trouble(folder, "make room and repeat the command"):
                    write_record(folder, record)


def _control(control: ControlRecord, tests: dict[str, ScoreRecord]) -> ControlRecord:
    test = tests.get(control.run_id or "")
    if test is None:
        return control
    return control.model_copy(update={"value": test.value, "low": test.low, "high": test.high})
