"""Submission files: reads predictions that were not made here, and writes a run's own.

A submission is a file in the training format. It is read by the task's own reader, record by record
next to the data's, and its answers are the predictions. A predictions.jsonl is read as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
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
from cpm_tune.metrics import Kind, get_metric
from cpm_tune.task import BadRow, Choice, Options, Row, Submission, Task
from cpm_tune.task.answers import gold, is_withheld, parsed


@dataclass(frozen=True)
class SubmittedAnswer:
    """A row's id, its prediction (None: none, or not readable) and target, as metrics take them."""

    id: str
    prediction: Any
    target: Any


def read_answers(task: Task, path: Path, data: SplitFile) -> tuple[list[SubmittedAnswer], str]:
    """The predictions of a file for the rows of a split, in their order, and the file's form.

    Raises UserError for a file that does not belong to the data or cannot be read.
    """
    if not path.is_file():
        reason = "a folder, expected a file" if path.is_dir() else "there is no such file"
        raise UserError(f"--predictions {path}: {reason}.")
    kind = get_metric(task.metrics[0]).kind
    if kind.likelihood:
        raise UserError(f"task {task.name} ranks by a likelihood, which predictions do not have.")
    by_id = _has_ids(path)
    answers = []
    for where, row, prediction in (_by_id if by_id else _by_record)(task, path, data):
        expected = "" if prediction is None else _expected(task, kind, row, prediction)
        if expected:
            raise UserError(f"{where}: prediction is {_short(prediction)}, expected {expected}.")
        answers.append(SubmittedAnswer(str(row["id"]), prediction, gold(task, row)))
    if not answers:
        raise UserError(f"{data.path}: the {data.split} split has no rows.")
    if any(answer.target is None for answer in answers):
        raise UserError(
            f"{data.path}: the {data.split} split has no answers to compare with; give labelled "
            "data, or --split dev."
        )
    if all(answer.prediction is None for answer in answers):
        raise UserError(f"{path}: no answer that can be read (task {task.name}).")
    return answers, "predictions.jsonl" if by_id else "submission"


def _expected(task: Task, kind: Kind, row: Row, prediction: Any) -> str:
    """What was expected instead of a prediction; "" if it has the form that metrics take."""
    answer = task.answer
    if isinstance(answer, Choice):
        labels = [str(label) for label in answer.labels]
        return "" if str(prediction) in labels else f"one of the labels {', '.join(labels[:6])}"
    if isinstance(answer, Options):
        last = len(row[answer.options]) - 1
        fits = type(prediction) is int and 0 <= prediction <= last
        return "" if fits else f"an option's number, 0 to {last}"
    return kind.expected(prediction, row["target"])


# --- predictions.jsonl: one {"id", "prediction"} per line ---


def _has_ids(path: Path) -> bool:
    try:
        _, first = next(json_lines(path), ("", None))
    except UserError:
        return False
    return isinstance(first, dict) and (
        "prediction" in first or (len(first) == 2 and "id" in first)
    )


def _by_id(task: Task, path: Path, data: SplitFile) -> Iterator[tuple[str, Row, Any]]:
    """The place, row and prediction of each row. Lines are in any order if the rows' ids differ,
    else in the order of the data."""
    lines: list[tuple[str, str, Any]] = []
    for where, line in json_lines(path):
        if isinstance(line, BadRow):
            raise UserError(line.message)
        if not isinstance(line, dict) or not {"id", "prediction"} <= set(line):
            raise UserError(f'{where}: expected {{"id": …, "prediction": …}}.')
        lines.append((where, str(line["id"]), line["prediction"]))
    rows = list(checked_rows(task, data))
    _same_number(path, len(lines), data, len(rows), "lines")
    ids = {row["id"] for row in rows}
    any_order = len(ids) == len(rows)
    by_id: dict[str, tuple[str, Any]] = {}
    for (where, name, prediction), row in zip(lines, rows, strict=True):
        if name not in ids:
            raise UserError(f"{where}: the {data.split} split has no row '{name}'.")
        if any_order and name in by_id:
            raise UserError(f"{where}: id '{name}' was there before; expected each one once.")
        if not any_order and name != row["id"]:
            raise UserError(f"{where}: id is '{name}', expected '{row['id']}' here.")
        by_id[name] = where, prediction
    for line, row in zip(lines, rows, strict=True):
        where, prediction = by_id[row["id"]] if any_order else (line[0], line[2])
        yield where, row, prediction


# --- the organisers' form ---


def _by_record(task: Task, path: Path, data: SplitFile) -> Iterator[tuple[str, Row, Any]]:
    """The place, row and prediction of each row, from records in the order of the data's."""
    submitted = _without_blanks(
        official_records(task, SplitFile(data.split, (path,), "", data.source))
    )
    records = (
        (record, rows)
        for record, rows, n_bad in records_with_rows(task, data)
        if rows or n_bad or not _is_blank(record)
    )
    check = row_checker(task, SplitFile("test", (path,), ""))
    for number, (official, rows) in enumerate(records):
        given = next(submitted, None)
        if given is None:
            n = number + 1 + sum(1 for _ in records)
            _same_number(path, number, data, n, "records")
            return
        where, record = given
        predictions = _predictions(task, where, record, official, rows, check)
        for row, prediction in zip(rows, predictions, strict=True):
            yield where, row, prediction
    _same_number(path, number + 1 + sum(1 for _ in submitted), data, number + 1, "records")


def _without_blanks(records: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    return ((where, record) for where, record in records if not _is_blank(record))


def _is_blank(record: Any) -> bool:
    """Whether a record is that of an empty line, which does not count in either file."""
    return isinstance(record, dict | list) and is_withheld(record)


def _predictions(
    task: Task, where: str, record: Any, official: Any, rows: Sequence[Row], check: Any
) -> Sequence[Any]:
    """The predictions of a submitted record for the rows of the official one."""
    if isinstance(record, BadRow):
        raise UserError(record.message)
    if task.submission is not None and task.submission.read is not None:
        try:
            return task.submission.read(record, official, rows)
        except KeyError as error:
            raise UserError(f"{where}: no field {error} (task {task.name}).") from error
        except ValueError as error:
            raise UserError(f"{where}: {error} (task {task.name}).") from error
        except Exception as error:  # a file of another form, or a task file's own code
            raise UserError(
                f"{where}: not of the official form ({error}; task {task.name})."
            ) from error
    submitted = list(rows_of(task, where, record))
    if len(submitted) != len(rows):
        raise UserError(
            f"{where}: {len(submitted)} rows, but the record in its place in the data has "
            f"{len(rows)} (task {task.name}); keep the order of the data."
        )
    return [
        _prediction(task, where, answered, row, check)
        for answered, row in zip(submitted, rows, strict=True)
    ]


def _prediction(task: Task, where: str, submitted: Row | BadRow, row: Row, check: Any) -> Any:
    if isinstance(submitted, BadRow):
        raise UserError(submitted.message)
    checked = check(where, submitted)
    if "id" in submitted:
        checked["id"] = str(submitted["id"])
    for name in (*task.shown, "id"):
        if checked.get(name, row[name]) != row[name]:
            raise UserError(
                f"{where}: '{name}' is {_short(checked[name])}, in the data {_short(row[name])}; "
                f"keep the records and their order (task {task.name})."
            )
    answer, target = gold(task, checked), checked["target"]
    if target is None or isinstance(task.answer, Choice | Options):
        return answer
    from_gold = get_metric(task.metrics[0]).kind.from_gold
    return parsed(task, target, row) if from_gold is None else from_gold(answer)[0]


def _same_number(path: Path, n: int, data: SplitFile, expected: int, what: str) -> None:
    if n != expected:
        names = ", ".join(file.name for file in data.paths)
        raise UserError(
            f"{path}: {n:,} {what}, but {names} has {expected:,}; a prediction for each is needed."
        )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


# --- writing one ---


def write_submission(task: Task, data: Split, predictions: Sequence[Any], path: Path) -> list[str]:
    """Write predictions in the form the benchmark's organisers score, record by record; a second
    form of theirs goes beside `path`.

    Returns one warning per kind of record without a prediction: those with bad rows are written
    unchanged, those after a limit are left out.
    """
    assert task.submission is not None
    left, bad, missing = iter(predictions), 0, 0
    answered: list[tuple[Any, list[Any] | None]] = []
    for record, rows, n_bad in records_with_rows(task, data.file, []):
        answers = [] if missing else list(islice(left, len(rows)))
        if len(answers) < len(rows):
            missing += 1
        elif isinstance(record, BadRow) or n_bad:
            bad += 1
            answered += [] if isinstance(record, BadRow) else [(record, None)]
        else:
            answered.append((record, answers))
    warnings = []
    if bad:
        warnings.append(f"{path.name}: no prediction for {counted(bad, 'record')} with bad rows")
    if missing:
        warnings.append(f"{path.name}: {counted(missing, 'record')} after the limit left out")
    if not answered:
        raise UserError(f"{data.file.path}: no complete record has a prediction; raise --limit.")
    for form in task.submission.forms:
        first = form is task.submission
        records = [
            _filled(task, form, record, answers) if answers is not None else record if first else ""
            for record, answers in answered
        ]
        if form.document is not None:
            records = [form.document(records)]
        lines = (r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records)
        place = path if first else path.with_name(form.file)
        write_atomically(place, "".join(line + "\n" for line in lines))
    return warnings


def _filled(task: Task, form: Submission, record: Any, predictions: Sequence[Any]) -> Any:
    try:
        return form.fill(record, predictions)
    except Exception as error:  # a task file's own code
        raise UserError(
            f"fill() of task {task.name} failed: {type(error).__name__}: {error}."
        ) from error
