"""The commands `errors` and `diff`: where a run is wrong, and where two runs differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from cpm_tune.analysis.errors import KINDS, Answered, diff, find_errors
from cpm_tune.analysis.errors_text import diff_tables, error_tables
from cpm_tune.analysis.page import Table, as_html, as_text
from cpm_tune.analysis.texts import option_column, texts
from cpm_tune.commands.options.runs import Diff, Errors
from cpm_tune.common.folders import RECORD, predictions_file
from cpm_tune.common.writing import write_atomically
from cpm_tune.data.readers import json_lines
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.texts import recorded_rows
from cpm_tune.metrics import get_metric
from cpm_tune.schema.record import AnyRecord, RunRecord, read_any_record
from cpm_tune.systems.predictions import recorded_predictions
from cpm_tune.task import BadRow, Row, Task
from cpm_tune.task.registry import load_task

_ENDINGS = (".html", ".htm", ".txt")


def run(options: Errors) -> int:
    """Print or write a run's errors on test."""
    _check(options.out, _ENDINGS)
    record, answers = _read(options.run)
    task = load_task(record.spec.task, options.include)
    rows, note = _rows(task, record, answers, options.data)
    errors = find_errors(task, record.ranks_by, answers, rows)
    overlap = record.overlap if isinstance(record, RunRecord) else {}
    tables = error_tables(errors, answers, overlap, _text_of(task, rows), options.examples)
    score = record.test
    lines = [f"test {record.ranks_by} {score.value:.4f} of {score.n:,} rows", *note]
    _give(options.out, record.run_id, lines, tables)
    return 0


def compare(options: Diff) -> int:
    """Print or write the examples in which two runs differ."""
    _check(options.out, (*_ENDINGS, ".jsonl"))
    (first, a), (second, b) = _read(options.run), _read(options.other)
    metric = get_metric(options.metric or first.ranks_by)
    if metric.right is None:
        raise UserError(f"{metric.name} does not judge single examples; give --metric.")
    if [(x.id, x.target) for x in a] != [(x.id, x.target) for x in b]:
        raise UserError(f"{options.run} and {options.other} were not tested on the same rows.")
    task = load_task(first.spec.task, options.include)
    rows, note = _rows(task, first, a, options.data)
    text_of, kinds = _text_of(task, rows), diff(metric.right, a, b)
    if options.out is not None and options.out.suffix.lower() == ".jsonl":
        places = {number: kind for kind in KINDS for number in kinds[kind]}
        lines = (
            {
                "id": x.id,
                "kind": places[number],
                "text": text_of(number),
                "target": x.target,
                "first": x.prediction,
                "second": y.prediction,
            }
            for number, (x, y) in enumerate(zip(a, b, strict=True))
        )
        _write(options.out, "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines))
        return 0
    tables = diff_tables(kinds, a, b, text_of, options.examples)
    names = [f"first: {first.run_id}", f"second: {second.run_id}", f"metric: {metric.name}"]
    _give(options.out, f"{first.name} and {second.name}", [*names, *note], tables)
    return 0


def _read(folder: Path) -> tuple[AnyRecord, list[Answered]]:
    """A finished run's record, and its answers on test."""
    record = read_any_record(folder / RECORD)
    if "test" not in record.scores:
        raise UserError(f"{folder}: no test scores, expected a finished run on data with answers.")
    recorded_predictions(folder, record, "test")  # checks the file
    answers = []
    for where, line in json_lines(folder / predictions_file("test")):
        if isinstance(line, BadRow):
            raise UserError(line.message)
        scores = line.get("scores", ())
        if not all(isinstance(score, int | float) for score in scores):
            raise UserError(f"{where}: scores are not numbers.")
        answer = Answered(str(line["id"]), line["prediction"], line["target"], tuple(scores))
        answers.append(answer)
    return record, answers


def _rows(
    task: Task, record: AnyRecord, answers: Sequence[Answered], data: Path | None
) -> tuple[list[Row] | None, list[str]]:
    """The rows of test, or None and the reason in a note."""
    try:
        rows = recorded_rows(task, record, data)
    except UserError as error:
        if data is not None:
            raise
        return None, [f"without texts and lengths: {error}"]
    if [row["id"] for row in rows] != [answer.id for answer in answers]:
        if data is not None:
            raise UserError(f"--data {data}: its test rows have other ids than the predictions.")
        return None, ["without texts and lengths: the rows of the data have other ids"]
    return rows, []


def _text_of(task: Task, rows: Sequence[Row] | None) -> Callable[[int], str]:
    names, listed = task.shown, option_column(task)

    def text(number: int) -> str:
        if rows is None:
            return ""
        row = {**rows[number], listed: " / ".join(rows[number][listed])} if listed else rows[number]
        return " | ".join(texts(names, row)).replace("\n", " ")

    return text


def _check(out: Path | None, endings: Sequence[str]) -> None:
    if out is not None and out.suffix.lower() not in endings:
        raise UserError(f"--out {out}: expected an ending of {', '.join(endings)}.")


def _give(out: Path | None, heading: str, lines: Sequence[str], tables: Sequence[Table]) -> None:
    if out is None:
        print(as_text(heading, lines, tables))
        return
    make = as_html if out.suffix.lower() in (".html", ".htm") else as_text
    _write(out, make(heading, lines, tables) + "\n")


def _write(out: Path, text: str) -> None:
    try:
        write_atomically(out, text)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror}).") from error
    print(f"{out}: written")
