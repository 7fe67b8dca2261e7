"""Submission files: reads predictions that were not made here, and writes a run's own.

A submission is a file in the training format. It is read by the task's own reader, record by record
next to the data's, and its answers are the predictions. A predictions.jsonl is read as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from cpm_tune.common.sizes import counted
from cpm_tune.common.writing import write_atomically
from cpm_tune.data.files import (
    checked_rows,
    official_records,
    records_with_rows,
    row_checker,
    rows_of,
)
from cpm_tune.data.readers import json_lines
from cpm_tune.data.splits import SplitFile
from cpm_tune.data.store import Split
from cpm_tune.errors import UserError
from cpm_tune.metrics import get_metric
from cpm_tune.task import BadRow, Choice, Options, Row, Task
from cpm_tune.task.answers import gold, parsed


@dataclass(frozen=True)
class Answer:
    """A row's id, its prediction (None: none, or not readable) and target, as metrics take them."""

    id: str
    prediction: Any
    target: Any


def read_answers(task: Task, path: Path, data: SplitFile) -> tuple[list[Answer], str]:
    """The predictions of a file for the rows of a split, in their order, and the file's form.

    Raises UserError for a file that does not belong to the data or cannot be read.
    """
    if not path.is_file():
        said = "a folder, expected a file" if path.is_dir() else "there is no such file"
        raise UserError(f"--predictions {path}: {said}.")
    if get_metric(task.metrics[0]).kind.likelihood:
        raise UserError(f"task {task.name} ranks by a likelihood, which predictions do not hold.")
    own = _is_own(path)
    answers = list((_by_id if own else _beside)(task, path, data))
    if not answers:
        raise UserError(f"{data.path}: the {data.split} split has no rows.")
    if any(answer.target is None for answer in answers):
        raise UserError(
            f"{data.path}: the {data.split} split has no answers to compare with; give labelled "
            "data, or --split dev."
        )
    if all(answer.prediction is None for answer in answers):
        raise UserError(f"{path}: holds no answer that can be read (task {task.name}).")
    return answers, "predictions.jsonl" if own else "submission"


# --- our own form: {"id", "prediction"} a line ---


def _is_own(path: Path) -> bool:
    try:
        first = next(json_lines(path), None)
    except UserError:
        return False
    if first is None or not isinstance(first[1], dict):
        return False
    return "prediction" in first[1] or (len(first[1]) == 2 and "id" in first[1])


def _by_id(task: Task, path: Path, data: SplitFile) -> Iterator[Answer]:
    """Lines in any order where every id is there once; else in the order of the data."""
    found: dict[str, tuple[str, Any]] = {}
    listed: list[tuple[str, str, Any]] = []
    for where, line in json_lines(path):
        if isinstance(line, BadRow):
            raise UserError(line.message)
        if not isinstance(line, dict) or not {"id", "prediction"} <= set(line):
            raise UserError(f'{where}: expected {{"id": …, "prediction": …}}.')
        listed.append((where, str(line["id"]), line["prediction"]))
        found[str(line["id"])] = where, line["prediction"]
    rows = list(checked_rows(task, data))
    _same_number(path, len(listed), data, len(rows), "lines")
    ids = [str(row["id"]) for row in rows]
    known = set(ids)
    for where, name, _ in listed:
        if name not in known:
            raise UserError(f"{where}: the {data.split} split has no row '{name}'.")
    if len(known) == len(ids):
        twice = next((found[name][0] for at, name, _ in listed if found[name][0] != at), None)
        if twice is not None:
            raise UserError(f"{twice}: its id was there before; expected each one once.")
        chosen = [found[name] for name in ids]
    else:
        for (where, name, _), expected in zip(listed, ids, strict=True):
            if name != expected:
                raise UserError(f"{where}: id is '{name}', expected '{expected}' here.")
        chosen = [(where, prediction) for where, _, prediction in listed]
    for row, (where, prediction) in zip(rows, chosen, strict=True):
        fault = _misshapen(task, row, prediction)
        if fault:
            raise UserError(f"{where}: prediction is {_short(prediction)}, expected {fault}.")
        yield Answer(str(row["id"]), prediction, gold(task, row))


def _misshapen(task: Task, row: Row, value: Any) -> str:
    """What was expected where a prediction has not the form that the task's metrics take."""
    answer = task.answer
    if value is None:
        return ""
    if isinstance(answer, Choice):
        labels = [str(label) for label in answer.labels]
        return "" if str(value) in labels else f"one of the labels {', '.join(labels[:6])}"
    if isinstance(answer, Options):
        last = len(row[answer.options]) - 1
        return (
            "" if type(value) is int and 0 <= value <= last else f"an option's number, 0 to {last}"
        )
    return get_metric(task.metrics[0]).kind.expected(value, row["target"])


# --- the organisers' form ---


def _beside(task: Task, path: Path, data: SplitFile) -> Iterator[Answer]:
    """The data's records beside the submission's, which stand in the same order."""
    theirs = official_records(task, SplitFile(data.split, (path,), ""))
    ours = records_with_rows(task, data)
    check = row_checker(task, SplitFile("test", (path,), ""))
    for number, (official, rows, _) in enumerate(ours):
        given = next(theirs, None)
        if given is None:
            n = number + 1 + sum(1 for _ in ours)
            _same_number(path, number, data, n, "records")
            return
        where, record = given
        predictions = _predictions(task, where, record, official, rows, check)
        for row, prediction in zip(rows, predictions, strict=True):
            fault = _misshapen(task, row, prediction)
            if fault:
                raise UserError(f"{where}: the answer is {_short(prediction)}, expected {fault}.")
            yield Answer(str(row["id"]), prediction, gold(task, row))
    _same_number(path, number + 1 + sum(1 for _ in theirs), data, number + 1, "records")


def _predictions(
    task: Task, where: str, record: Any, official: Any, rows: Sequence[Row], check: Any
) -> Sequence[Any]:
    """The predictions that a submitted record holds for the rows of the official one."""
    if isinstance(record, BadRow):
        raise UserError(record.message)
    if task.submission is not None and task.submission.read is not None:
        try:
            found = task.submission.read(record, official, rows)
        except KeyError as error:
            raise UserError(f"{where}: no field {error} (task {task.name}).") from error
        except ValueError as error:
            raise UserError(f"{where}: {error} (task {task.name}).") from error
        except Exception as error:  # a file of another form, or a task file's own code
            raise UserError(
                f"{where}: not of the official form ({error}; task {task.name})."
            ) from error
        return found
    given = list(rows_of(task, where, record))
    if len(given) != len(rows):
        raise UserError(
            f"{where}: {len(given)} rows, but the record in its place in the data has {len(rows)} "
            f"(task {task.name}); keep the order of the data."
        )
    return [
        _prediction(task, where, theirs, row, check)
        for theirs, row in zip(given, rows, strict=True)
    ]


def _prediction(task: Task, where: str, given: Row | BadRow, row: Row, check: Any) -> Any:
    if isinstance(given, BadRow):
        raise UserError(given.message)
    theirs = check(where, given)
    names = [*task.shown, *(["id"] if "id" in given else [])]
    for name in names:
        said = str(given["id"]) if name == "id" else theirs[name]
        if said != row[name]:
            raise UserError(
                f"{where}: '{name}' is {_short(said)}, in the data {_short(row[name])}; keep the "
                f"records and their order (task {task.name})."
            )
    answer, target = gold(task, theirs), theirs["target"]
    if target is None or isinstance(task.answer, Choice | Options):
        return answer
    from_gold = get_metric(task.metrics[0]).kind.from_gold
    return parsed(task, target, row) if from_gold is None else from_gold(answer)[0]


def _same_number(path: Path, n: int, data: SplitFile, expected: int, what: str) -> None:
    if n != expected:
        names = ", ".join(p.name for p in chain(data.paths))
        raise UserError(
            f"{path}: {n:,} {what}, but {names} has {expected:,}; a prediction for each is needed."
        )


def _short(value: Any) -> str:
    said = json.dumps(value, ensure_ascii=False)
    return said if len(said) <= 60 else said[:57] + "..."


# --- writing one ---


def write_submission(task: Task, data: Split, predictions: Sequence[Any], path: Path) -> list[str]:
    """Write predictions in the form the benchmark's organisers score, record by record.

    Returns one warning per kind of record without a prediction: those with bad rows are written
    unchanged, those after a limit are left out.
    """
    assert task.submission is not None
    left, records, bad, missing = iter(predictions), list[Any](), 0, 0
    for record, rows, n_bad in records_with_rows(task, data.file, []):
        answers = [] if missing else list(islice(left, len(rows)))
        if len(answers) < len(rows):
            missing += 1
        elif isinstance(record, BadRow) or n_bad:
            bad += 1
            records += [] if isinstance(record, BadRow) else [record]
        else:
            records.append(_filled(task, record, answers))
    warnings = []
    if bad:
        warnings.append(f"{path.name}: no prediction for {counted(bad, 'record')} with bad rows")
    if missing:
        warnings.append(f"{path.name}: {counted(missing, 'record')} after the limit left out")
    if not records:
        raise UserError(f"{data.file.path}: no complete record has a prediction; raise --limit.")
    if task.submission.document is not None:
        records = [task.submission.document(records)]
    lines = (r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records)
    write_atomically(path, "".join(line + "\n" for line in lines))
    return warnings


def _filled(task: Task, record: Any, predictions: Sequence[Any]) -> Any:
    assert task.submission is not None
    try:
        return task.submission.fill(record, predictions)
    except Exception as error:  # a task file's own code
        raise UserError(
            f"fill() of task {task.name} failed: {type(error).__name__}: {error}."
        ) from error
