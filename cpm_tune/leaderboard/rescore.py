"""Recomputes every metric of a results folder from the predictions that its runs left."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cpm_tune.common.folders import RECORD, is_complete, predictions_file, run_lock
from cpm_tune.common.paths import file_sha256
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.verify import differing
from cpm_tune.schema.record import (
    AnyRecord,
    ControlRecord,
    EarlierScore,
    RunRecord,
    ScoreRecord,
    read_any_record,
    write_record,
)
from cpm_tune.schema.walk import record_files
from cpm_tune.systems.predictions import (
    from_predictions,
    read_predictions,
    score_predictions,
)


@dataclass(frozen=True)
class Change:
    """A score that is not what its metric gives now."""

    run_id: str
    split: str
    metric: str
    before: ScoreRecord
    now: ScoreRecord


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
    `earlier_scores`; zero-shot and random-backbone controls follow the runs that they quote.
    A run whose predictions are not those of its record is a fault and stays as it is.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such results folder.")
    changes: list[Change] = []
    faults: list[str] = []
    notes: list[str] = []
    updated: dict[Path, AnyRecord] = {}
    for path in record_files(folder, faults):
        if not is_complete(path.parent):
            continue
        try:
            record = read_any_record(path)
            if record.status != "finished":
                continue
            found = list(_changes(path.parent, record))
        except UserError as error:
            faults.append(str(error))
            continue
        changes += found
        notes += _left_out(record, found)
        updated[path.parent] = _with(record, found)
    if write:
        _write(updated)
    return Rescored(tuple(changes), tuple(faults), tuple(dict.fromkeys(notes)), len(updated))


def _changes(folder: Path, record: AnyRecord) -> Iterator[Change]:
    for split, scores in record.scores.items():
        path = folder / predictions_file(split)
        found = read_predictions(path)
        if file_sha256(path) != record.predictions.get(path.name):
            raise UserError(f"{path}: not the predictions of its record; the file was changed.")
        if split in record.data and record.data[split].n != len(found):
            raise UserError(
                f"{path}: {len(found):,} rows, the record says {record.data[split].n:,}."
            )
        for name, before in scores.items():
            try:
                if not from_predictions(name):
                    continue
                now = score_predictions(name, found)
            except UserError as error:
                raise UserError(f"{folder}: {split} {name}: {error}") from error
            if differing(before, now):
                yield Change(record.run_id, split, name, before, now)


def _left_out(record: AnyRecord, found: list[Change]) -> Iterator[str]:
    names = {name for scores in record.scores.values() for name in scores}
    fixed = sorted(name for name in names if not from_predictions(name))
    if fixed:
        yield f"{', '.join(fixed)} cannot be computed from predictions and stays as it is"
    ranked = any((c.split, c.metric) == ("test", record.ranks_by) for c in found)
    if ranked and isinstance(record, RunRecord) and "majority" in record.controls:
        yield "the majority control needs the data and stays as it is; --overwrite makes it anew"


def _with(record: AnyRecord, found: list[Change]) -> AnyRecord:
    if not found:
        return record
    scores = {split: dict(own) for split, own in record.scores.items()}
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    earlier = list(record.earlier_scores)
    for change in found:
        scores[change.split][change.metric] = change.now
        earlier.append(
            EarlierScore(
                split=change.split, metric=change.metric, score=change.before, replaced_at=at
            )
        )
    return record.model_copy(update={"scores": scores, "earlier_scores": earlier})


def _write(updated: dict[Path, AnyRecord]) -> None:
    """Write what changed; a control that quotes a run of this folder says what that run says."""
    tests = {
        record.run_id: record.test
        for record in updated.values()
        if "test" in record.scores and record.ranks_by in record.scores["test"]
    }
    for folder, record in updated.items():
        if isinstance(record, RunRecord):
            controls = {name: _control(own, tests) for name, own in record.controls.items()}
            record = record.model_copy(update={"controls": controls})
        with run_lock(folder.parent, record.run_id, wait=True):
            if record != read_any_record(folder / RECORD):
                write_record(folder, record)


def _control(control: ControlRecord, tests: dict[str, ScoreRecord]) -> ControlRecord:
    test = tests.get(control.run_id or "")
    if test is None:
        return control
    return control.model_copy(update={"value": test.value, "low": test.low, "high": test.high})
