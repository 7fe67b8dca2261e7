"""Checks the records of a results folder: schema, hashes, names, scores against predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from cpm_tune.common.folders import DELTA, predictions_file
from cpm_tune.common.paths import file_sha256
from cpm_tune.common.program import program
from cpm_tune.errors import UserError
from cpm_tune.schema.record import AnyRecord, RunRecord, ScoreRecord
from cpm_tune.schema.walk import iter_records
from cpm_tune.systems.predictions import (
    Predictions,
    from_predictions,
    read_predictions,
    score_part,
    score_predictions,
)

LONGEST = 255  # bytes of a file's name
TOLERANCE = 1e-9  # of a score, relative: sums of other versions of numpy are rounded otherwise


def verify_results(folder: Path) -> tuple[int, list[str]]:
    """The number of finished records below a folder, and one sentence per fault. Raises UserError
    if there is no folder."""
    n, faults = 0, list[str]()
    for place, record in iter_records(folder, faults):
        n += 1
        faults += [f"{place}: {fault}" for fault in _faults(place, record)]
    return n, faults


def _faults(folder: Path, record: AnyRecord) -> Iterator[str]:
    if record.run_id != record.spec.run_id:
        yield f"run_id is {record.run_id}, but its spec gives {record.spec.run_id}."
    if folder.name != record.run_id:
        yield f"the folder is not called by its run_id, {record.run_id}."
    yield from _file_faults(folder, record)
    for split in record.data:
        expected = getattr(record.spec.data, split, None)
        if expected is not None and record.data[split].sha256 != expected:
            yield f"data.{split}.sha256 is not that of the spec."
    for split, scores in record.scores.items():
        yield from _score_faults(folder, record, split, scores)
    if isinstance(record, RunRecord) and record.overlap and "test" in record.scores:
        yield from _overlap_faults(folder, record)


def _file_faults(folder: Path, record: AnyRecord) -> Iterator[str]:
    hashes = dict(record.predictions)
    if isinstance(record, RunRecord) and record.delta.sha256 is not None:
        hashes[DELTA] = record.delta.sha256
    for name, sha in hashes.items():
        if Path(name).name != name or len(name.encode()) > LONGEST:
            yield f"'{name:.80}' is not a file of the run's own folder."
        elif not (folder / name).is_file():
            yield f"{name} is missing."
        elif file_sha256(folder / name) != sha:
            yield f"{name} is not the file of the record: its sha256 differs."
    for split in record.scores:
        if predictions_file(split) not in hashes:
            yield f"{split} has scores, but the record names no {predictions_file(split)}."
    if isinstance(record, RunRecord) and record.spec.recipe is not None and DELTA not in hashes:
        yield f"the record names no {DELTA}, although it was trained."


def _score_faults(
    folder: Path, record: AnyRecord, split: str, scores: dict[str, ScoreRecord]
) -> Iterator[str]:
    missing = [name for name in record.spec.metrics if name not in scores]
    if missing:
        yield f"{split} has no {', '.join(missing)}, which the spec names."
    try:
        predictions = read_predictions(folder / predictions_file(split))
    except UserError as error:
        yield str(error)
        return
    n = record.data[split].n if split in record.data else 0
    if n != len(predictions):
        yield (
            f"the record says {f'{n:,}' if n else 'no'} rows in {split}, "
            f"{predictions_file(split)} has {len(predictions):,}."
        )
    for name, score in scores.items():
        try:
            now = score_as_recorded(name, score, predictions)
        except UserError as error:
            yield f"{split} {name}: {error}"
            continue
        for what in differing(score, now):
            yield (
                f"{split} {name}: {what} is recorded as {getattr(score, what)}, the predictions "
                f"give {getattr(now, what)}{_why(score, now)}."
            )


def _overlap_faults(folder: Path, record: RunRecord) -> Iterator[str]:
    """Faults of the scores on the rows that test shares with another split, and on the rest."""
    try:
        predictions = read_predictions(folder / predictions_file("test"))
        for name, part, score, numbers in overlap_scores(record, len(predictions)):
            now = score_part(record.ranks_by, predictions, numbers, score.signature)
            for what in differing(score, now) if now else ("value",):
                yield (
                    f"overlap.{name}.{part}: {what} is recorded as {getattr(score, what)}, the "
                    f"predictions give {getattr(now, what, 'none')}."
                )
    except UserError as error:
        yield str(error)


def overlap_scores(record: RunRecord, n: int) -> Iterator[tuple[str, str, ScoreRecord, list[int]]]:
    """The scores of parts of test's `n` rows that a record has: the other split's name, which part,
    its score, and the numbers of its rows. Raises UserError for numbers that are not rows."""
    for name, overlap in record.overlap.items():
        for part, numbers in overlap.parts(n).items():
            if (score := getattr(overlap, part)) is not None:
                yield name, part, score, numbers


def score_as_recorded(name: str, recorded: ScoreRecord, predictions: Predictions) -> ScoreRecord:
    """A recorded score as the version of the metric that it names gives it; see `score_now`."""
    if not from_predictions(name):
        return recorded
    return score_predictions(name, predictions, recorded.signature)


def score_now(name: str, recorded: ScoreRecord, predictions: Predictions) -> ScoreRecord:
    """A recorded score as its metric gives it now; itself, if predictions do not give it. Raises
    UserError if they are not what the metric takes."""
    return score_predictions(name, predictions) if from_predictions(name) else recorded


def differing(score: ScoreRecord, now: ScoreRecord) -> list[str]:
    """The parts of a score that have another value now; rounding is not a difference."""
    return [
        name
        for name in ("value", "low", "high", "n", "signature", "higher_is_better")
        if not _equal(getattr(score, name), getattr(now, name))
    ]


def _equal(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return a == b


def _why(score: ScoreRecord, now: ScoreRecord) -> str:
    if score.signature == now.signature:
        return ""
    return f" (the metric is another version: see {program()} rescore)"
