"""The examples of the page, run by run: predictions, which are right, and where the run is wrong.

Each run is a part of its own, read when somebody looks at it: its record, how it is made again, its
errors (the numbers of the command `errors`), and its test predictions in columns. In the page their
number is bounded; files next to it have them all.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cpm_tune.analysis.errors import Answered, find_errors, lead, right_option
from cpm_tune.common.folders import predictions_file
from cpm_tune.common.paths import file_sha256
from cpm_tune.common.reading import open_regular, parse_json
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.board import Board
from cpm_tune.leaderboard.repeat import repeat_of
from cpm_tune.leaderboard.results import AnyStored, Results
from cpm_tune.leaderboard.texts import EXAMPLES, Texts
from cpm_tune.metrics import get_metric
from cpm_tune.schema.record import AnyRecord, RunRecord
from cpm_tune.systems.predictions import FOREIGN
from cpm_tune.task import Row, Task
from cpm_tune.task.registry import load_task

OPTIONS = 40  # scores of an example
RECORD = 400_000  # characters of a record; one of 500 evaluations has 60,000


@dataclass(frozen=True)
class Bounds:
    """What is shown at most: `runs` with a part of their own, lines of predictions `read` of all
    runs together, predictions `in_all` and `per_run`, characters of a `text`, and `examples` whose
    texts are shown, of all data sets together."""

    runs: int
    read: int
    in_all: int
    per_run: int
    text: int
    examples: int

    def at_most(self, runs: Sequence[AnyStored]) -> int:
        """How many predictions of each run are shown: all, unless the runs together have more than
        `in_all`; then the same number of each that has as many."""
        sizes = sorted(min(_size(run.record), self.per_run) for run in runs)
        left, most = self.in_all, self.per_run
        for place, size in enumerate(sizes):
            share = left // (len(sizes) - place)
            if size > share:
                return min(most, share)
            left -= size
        return most


IN_PAGE = Bounds(runs=500, read=500_000, in_all=30_000, per_run=30_000, text=300, examples=EXAMPLES)
BESIDE = Bounds(
    runs=10**9, read=10**12, in_all=10**12, per_run=50_000, text=2_000, examples=200_000
)


def _size(record: AnyRecord) -> int:
    return record.data["test"].n if "test" in record.data else 0


def ordered_runs(board: Board, results: Results, bounds: Bounds) -> list[AnyStored]:
    """The runs and systems that get a part: the first rows' first, until a bound is reached."""
    stored: list[AnyStored] = [*results.runs, *results.systems]
    known = {run.record.run_id: run for run in stored}
    ids = [run.run_id for row in board.rows for cell in row.cells.values() for run in cell.runs]
    chosen: list[AnyStored] = []
    lines = 0
    for run in (known[name] for name in dict.fromkeys(ids) if name in known):
        lines += _size(run.record)
        if len(chosen) == bounds.runs or (lines > bounds.read and chosen):
            break
        chosen.append(run)
    return chosen


def run_part(
    run: AnyStored, most: int, bounds: Bounds, texts: Texts, include: Sequence[Path] = ()
) -> dict[str, Any]:
    """A run's part: its first `most` predictions, and what all of them show."""
    record = run.record
    task = _task(record.spec.task, tuple(include))
    answers, lines = _answers(run, texts)
    number = texts.set_of(record.run_id, [answer.id for answer in answers])
    rows = None if number is None else texts.rows[number]
    text = record.model_dump_json(indent=1) + "\n"
    return {
        "folder": run.folder.name,
        "record": text if len(text) <= RECORD else None,
        "again": _again(record, task),
        "errors": _errors(record, task, answers, rows),
        "set": None if number is None else texts.names[number],
        "n": len(answers),
        "examples": _columns(record, task, answers[:most], lines, bounds),
    }


@cache
def _task(name: str, include: tuple[Path, ...]) -> Task | None:
    try:
        return load_task(name, include)
    except UserError:
        return None


def _again(record: AnyRecord, task: Task | None) -> dict[str, Any] | None:
    if task is None or not isinstance(record, RunRecord):
        return None
    try:
        return asdict(repeat_of(record, task))
    except (UserError, ValueError):  # a setting or a method of another version
        return None


def _answers(run: AnyStored, texts: Texts) -> tuple[list[Answered], list[str | None]]:
    """A run's answers on test, and the generated texts in which there was none; no answers, and a
    note, if the file is not the one that the record has. One note says how many lines are not
    read, and names the first."""
    name = predictions_file("test")
    path, wanted = run.folder / name, run.record.predictions.get(name)
    answers: list[Answered] = []
    unread: list[str | None] = []
    first, n_bad = "", 0
    try:
        if wanted is not None and file_sha256(path) != wanted:
            texts.note(f"{path}: not shown, its sha256 is not the record's.")
            return answers, unread
        with io.TextIOWrapper(open_regular(path), encoding="utf-8") as file:
            for number, line in enumerate(file):
                try:
                    values = parse_json(line)
                    if not isinstance(values, dict) or "id" not in values:
                        raise ValueError("no object with an id")
                except ValueError as error:
                    first, n_bad = first or f"{path}:{number + 1}: not shown ({error})", n_bad + 1
                    continue
                answers.append(_answer(values))
                text = values.get("text")
                parsed = answers[-1].prediction is not None
                unread.append(None if parsed or not isinstance(text, str) else text)
    except (OSError, UnicodeDecodeError) as error:
        if wanted is not None or not isinstance(error, FileNotFoundError):
            reason = error.strerror if isinstance(error, OSError) else error
            texts.note(f"{path}: not shown ({reason}).")
    if n_bad:
        texts.note(first + (f", nor are {n_bad - 1:,} lines after it." if n_bad > 1 else "."))
    return answers, unread


def _answer(values: Mapping[str, Any]) -> Answered:
    scores = values.get("scores")
    numbers = isinstance(scores, list) and all(
        isinstance(s, int | float) and not isinstance(s, bool) for s in scores
    )
    named = str(values["id"]), values.get("prediction"), values.get("target")
    return Answered(*named, tuple(map(float, scores)) if numbers and scores else ())


def _errors(
    record: AnyRecord, task: Task | None, answers: Sequence[Answered], rows: Sequence[Row] | None
) -> dict[str, Any] | None:
    """Where a run is wrong, by the code of the command `errors`; None if its predictions cannot be
    judged."""
    if task is None or not answers:
        return None
    if rows is not None:  # of a run with a limit, all rows of the file
        rows = rows[: len(answers)] if len(rows) >= len(answers) else None
    try:
        errors = find_errors(task, record.ranks_by, answers, rows)
    except (UserError, *FOREIGN):  # another system's file, or a metric of another version
        return None
    buckets = {name: score.model_dump() for name, score in errors.buckets.items()}
    return {**asdict(errors), "buckets": buckets, "surest": []}


def _columns(
    record: AnyRecord,
    task: Task | None,
    answers: Sequence[Answered],
    unread: Sequence[str | None],
    bounds: Bounds,
) -> dict[str, Any]:
    """Examples by column: many lines of equal keys would be three times as long. `right` is one
    letter per example: 1, 0, or - if it is not judged. `id` is None if ids are 0, 1, 2, ..."""
    ids = [answer.id for answer in answers]
    columns: dict[str, Any] = {
        "id": None if ids == list(map(str, range(len(ids)))) else ids,
        "prediction": [_bounded(answer.prediction, bounds.text) for answer in answers],
        "target": [_bounded(answer.target, bounds.text) for answer in answers],
        "right": "".join(_verdict(record.ranks_by, a.prediction, a.target) for a in answers),
    }
    if any(text is not None for text in unread[: len(answers)]):
        columns["text"] = [text and _cut(text, bounds.text) for text in unread[: len(answers)]]
    if any(answer.scores for answer in answers):
        columns["scores"] = [[round(s, 4) for s in a.scores[:OPTIONS]] for a in answers]
        leads = [_lead(task, answer) for answer in answers]
        if any(value is not None for value in leads):
            columns["lead"] = leads
    return columns


def _lead(task: Task | None, answer: Answered) -> float | None:
    if task is None:
        return None
    try:
        value = lead(answer, right_option(task, answer))
    except FOREIGN:
        return None
    return None if value is None else round(value, 4)


def _verdict(metric: str, prediction: Any, target: Any) -> str:
    right = is_right(metric, prediction, target)
    return "-" if right is None else str(int(right))


def _bounded(value: Any, most: int) -> Any:
    """A value of a prediction, its text cut to a bounded length."""
    if isinstance(value, str):
        return _cut(value, most)
    text = json.dumps(value, ensure_ascii=False)
    return value if len(text) <= most else _cut(text, most)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "…"


def is_right(metric: str, prediction: Any, target: Any) -> bool | None:
    """Whether a prediction is right by the ranking metric; None if it does not judge single
    examples, or this prediction is not of its kind. No prediction is wrong by any metric."""
    if prediction is None:
        return False
    try:
        right = get_metric(metric).right
        return None if right is None else bool(right(prediction, target))
    except (UserError, *FOREIGN):  # a metric of another version, or another system's file
        return None


def sources_of(names: Iterable[str], include: Sequence[Path] = ()) -> Iterator[tuple[str, Any]]:
    """Where each task's data set is from: title, paper, licence, how to obtain it, BibTeX."""
    for name in dict.fromkeys(names):
        task = _task(name, tuple(include))
        if task is None:
            continue
        source = task.source
        yield (
            name,
            {
                "title": source.title,
                "paper": source.paper,
                "licence": source.licence,
                "obtain": source.obtain,
                "bibtex": bibtex(name, source.title, source.paper),
                "citation": citation(source.paper),
            },
        )


def bibtex(name: str, title: str, paper: str) -> str:
    """An entry for a data set by its title and address; the paper's own has its authors."""
    lines = [f"@misc{{{name},", f"  title = {{{{{title}}}}},"]
    lines += [f"  howpublished = {{\\url{{{paper}}}}},"] if paper else []
    return "\n".join([*lines, "}"])


def citation(paper: str) -> str:
    """The address of a paper's own BibTeX entry, where its publisher has one; else ""."""
    if paper.startswith("https://aclanthology.org/"):
        return paper.rstrip("/") + ".bib"
    if paper.startswith("https://arxiv.org/abs/"):
        return paper.replace("/abs/", "/bibtex/")
    return ""
