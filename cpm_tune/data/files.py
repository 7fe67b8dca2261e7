"""Reads a task's files and checks their rows. Every fault is a UserError that names file and line.

What a row is: `id`, the task's columns without the one that holds the answer, and `target`: the
number of the right option, the documents' grades, or the text to write; None where a test split
has no answers.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from cpm_tune.common.sizes import counted
from cpm_tune.data.file_sets import SplitFile, companions
from cpm_tune.data.readers import Layout, records_of
from cpm_tune.data.tables import renamed
from cpm_tune.errors import UserError
from cpm_tune.task import BadRow, Choice, Options, Rank, Row, Task
from cpm_tune.task.answers import is_withheld

_WHOLE = re.compile(r"(-?\d+)\.0+")  # 1.0: how tables with gaps have been written by other programs


def checked_rows(
    task: Task, file: SplitFile, bad: list[str] | None = None, layout: Layout | None = None
) -> Iterator[Row]:
    """Yield a split's rows as they are on disk, checked.

    The first bad row raises UserError, unless a list is given to collect their messages. What is
    odd about tables and answers is noted in `layout`.
    """
    for _, rows, _ in records_with_rows(task, file, bad, layout):
        yield from rows


def records_with_rows(
    task: Task,
    file: SplitFile,
    bad: list[str] | None = None,
    layout: Layout | None = None,
) -> Iterator[tuple[Any, list[Row], int]]:
    """Yield each official record with its checked rows and how many of them were bad.

    In a test split all of whose answers are empty (none, -1, "", []) the rows have none.
    """
    check = row_checker(task, file)
    withheld = file.split == "test" and answers_withheld(task, file)
    number, n_empty, first_empty = 0, 0, ""
    unread: dict[str, None] = {}
    for nth_record, (where, record) in enumerate(official_records(task, file, layout)):
        if not file.has(nth_record):
            continue
        official = _id(record.get("id")) if isinstance(record, dict) else None
        rows, kept = list(rows_of(task, where, record)), []
        for nth, row in enumerate(rows):
            try:
                if isinstance(row, BadRow):
                    raise UserError(row.message)
                if withheld:
                    row = {k: None if k in task.hidden else v for k, v in row.items()}
                default = f"{official}-{nth}" if official and len(rows) > 1 else official
                name = _id(row.get("id")) or default or str(number)
                checked = {"id": name if _is_utf8(name) else str(number), **check(where, row)}
                if checked["target"] is None and not (task.files.rows or task.files.read):
                    unread |= dict.fromkeys({*row}.difference(task.files.columns, ["id"]))
            except UserError as error:
                if bad is None:
                    raise UserError(
                        f"{error} Fix it, or drop it with --skip-bad-rows (tune, bench)."
                    ) from None
                bad.append(str(error))
            else:
                kept.append(checked)
                if layout is not None:
                    _note_blanks(task, where, checked, layout)
                if isinstance(checked["target"], str) and not checked["target"].strip():
                    n_empty += 1
                    first_empty = where if n_empty == 1 else first_empty
            number += 1
        yield record, kept, len(rows) - len(kept)
    if unread and layout is not None:
        names = ", ".join(f"'{name[:40]}'" for name in sorted(unread)[:5])
        layout.warnings.append(
            f"not read, and there are no answers: {names}; if the answers are there, call the "
            f"column '{task.answer.column}'"
        )
    if n_empty and layout is not None:
        are = "answer is" if n_empty == 1 else "answers are"
        layout.warnings.append(f"{n_empty:,} {are} empty, first at {Path(first_empty).name}")


def _note_blanks(task: Task, where: str, row: Row, layout: Layout) -> None:
    """Count the row's texts (and options) that are empty, but for columns that may be."""
    for name in task.shown:
        value = row[name]
        texts = value if isinstance(value, list) else [value]
        if name not in task.files.blank and any(not text.strip() for text in texts):
            count, first = layout.blanks.get(name, (0, Path(where).name))
            layout.blanks[name] = count + 1, first


def _id(value: Any) -> str | None:
    """A row's id as text; null and blanks are none."""
    return None if value is None or not str(value).strip() else str(value)


def answers_withheld(task: Task, file: SplitFile) -> bool:
    """Whether all answers in a split are empty, as in the test files that are handed out."""
    gold, rows = task.hidden[-1], 0
    labels = {str(label) for label in getattr(task.answer, "labels", ())}
    for number, (where, record) in enumerate(official_records(task, file)):
        for row in rows_of(task, where, record) if file.has(number) else ():
            if isinstance(row, dict):
                rows += 1
                if not is_withheld(row.get(gold)) or str(row.get(gold)).strip() in labels:
                    return False
    return rows > 0


def official_records(
    task: Task, file: SplitFile, layout: Layout | None = None
) -> Iterator[tuple[str, Any]]:
    """The records of a split's files as the reader returns them, with their places."""
    if task.files.read is not None:
        where = str(file.path)
        try:
            for where, record in _own_reader(task, file, layout):
                yield where, record
        except UserError:
            raise
        except Exception as error:  # a task file's own code
            raise UserError(
                f"{where}: read() of task {task.name} failed here or after it: "
                f"{type(error).__name__}: {error}."
            ) from error
        return
    optional = task.hidden if file.split == "test" else ()
    columns, aliases = task.files.columns, task.files.aliases
    yield from records_of(file.paths, columns, aliases, optional, layout)


def _own_reader(task: Task, file: SplitFile, layout: Layout | None) -> Iterable[tuple[str, Any]]:
    """The records that the task's own read() gives; it may take a layout to note what is odd."""
    read = task.files.read
    assert read is not None
    if len(inspect.signature(read).parameters) < 3:
        return read(file.paths, file.written_for)
    return read(file.paths, file.written_for, layout or Layout())


def rows_of(task: Task, where: str, record: Any) -> Iterable[Row | BadRow]:
    """The rows of one official record; a record that is wrong is one BadRow."""
    if isinstance(record, BadRow):
        return [record]
    if task.files.rows is None:
        if isinstance(record, dict):
            if {*task.files.columns, "id"}.issuperset(record):
                return [record]
            try:
                names = renamed(tuple(record), task.files.columns, task.files.aliases)
            except ValueError as error:
                return [BadRow(f"{where}: {error}; keep one of them (task {task.name}).")]
            return [dict(zip(names, record.values(), strict=True))]
        kind = type(record).__name__
        return [BadRow(f"{where}: expected one JSON object per line, found {kind}.")]
    try:
        rows = list(task.files.rows(record))
        if all(isinstance(row, dict) for row in rows):
            return rows
        return [BadRow(f"{where}: rows() of task {task.name} gave no dict.")]
    except KeyError as error:
        fault = f"no field {error}"
    except ValueError as error:
        fault = str(error)
    except (TypeError, IndexError, AttributeError) as error:
        fault = f"not of the official form ({error}); `show {task.name}` prints records that are"
    except Exception as error:  # a task file's own code
        fault = f"rows() failed: {type(error).__name__}: {error}"
    fault = "\\n".join(fault.splitlines())  # a value of the record may have several lines
    return [BadRow(f"{where}: {fault} (task {task.name}).")]


def row_checker(task: Task, file: SplitFile) -> Callable[[str, Row], Row]:
    """Return a function that returns a row's columns and target, or raises UserError."""
    files, answer, hidden = task.files, task.answer, set(task.hidden)

    def check(where: str, row: Row) -> Row:
        checked: Row = {}
        answered = row.get(answer.column) is not None
        for name in files.columns:
            value = row.get(name)
            if value is None and (file.split != "test" or answered or name not in hidden):
                raise UserError(f"{where}: {_absent(task, file, name)}.")
            if name != answer.column:
                checked[name] = value
                if value is not None:
                    _check_value(task, where, name, value)
        if isinstance(answer, Options | Rank):
            _check_options(task, where, len(checked[answer.options]))
        value = row.get(answer.column)
        target = None if value is None else _target(task, where, value, checked, file.split)
        return {**checked, "target": target}

    return check


def _absent(task: Task, file: SplitFile, name: str) -> str:
    """What a row lacks, under the names that the official files have for it."""
    files = task.files
    official = [alias for alias, column in files.aliases.items() if column == name]
    known = " or ".join(f"'{n}'" for n in (*[name] * (not files.rows), *official[:2]))
    lacks = ", ".join(companions(task, file)) if name in task.hidden else ""
    elsewhere = f"; it may be in {lacks}, which is missing from this file's folder" if lacks else ""
    empty = ", or an empty one" if name in task.hidden else ""
    return f"no field {known or repr(name)}{empty} (task {task.name}){elsewhere}"


def _check_options(task: Task, where: str, n: int) -> None:
    """How many options or documents a row has, with or without an answer."""
    answer = task.answer
    if isinstance(answer, Options) and not 2 <= n <= answer.most:
        raise UserError(
            f"{where}: {counted(n, 'option')}, expected 2 to {answer.most} (task {task.name})."
        )
    if not n:
        raise UserError(f"{where}: no documents, expected one or more (task {task.name}).")


def _check_value(task: Task, where: str, name: str, value: Any) -> None:
    """Raise UserError if a column's value is of the wrong kind, or cannot be written as UTF-8."""
    if name in task.files.structures and name != task.answer.column:
        texts = [as_json(value)]
    else:
        texts = value if name in task.files.texts else [value]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            expected = "a list of texts" if name in task.files.texts else "text"
            raise UserError(
                f"{where}: '{name}' is {_short(value)}, expected {expected} (task {task.name})."
            )
    if any("\0" in text for text in texts):
        raise UserError(f"{where}: '{name}' contains a NUL character (task {task.name}).")
    if not all(map(_is_utf8, texts)):
        raise UserError(f"{where}: '{name}' contains half a surrogate pair (a cut emoji).")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _target(task: Task, where: str, value: Any, row: Row, split: str) -> Any:
    """The answer as it is used: an option's number, grades, or a text."""
    answer = task.answer
    name = f"{where}: {answer.column}"
    if isinstance(answer, Choice):
        return _label(answer, name, value, task.name)
    if isinstance(answer, Options):
        n = len(row[answer.options])
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < n:
            raise UserError(f"{name} is {_short(value)}, expected 0 to {n - 1} ({task.name}).")
        return value
    if isinstance(answer, Rank):
        n = len(row[answer.options])
        numbers = isinstance(value, list) and all(
            isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v < 1e9 for v in value
        )
        if not numbers or len(value) != n:
            raise UserError(
                f"{name} is {_short(value)}, expected {n} numbers from 0, one per document "
                f"({task.name})."
            )
        if split == "train" and (n < 2 or min(value) == max(value)):
            raise UserError(f"{name}: training needs a better and a worse document ({task.name}).")
        return [float(v) for v in value]
    _check_value(task, where, answer.column, value)
    return value


def _label(answer: Choice, where: str, value: object, task: str) -> int:
    labels = list(map(str, answer.labels))
    text = _WHOLE.sub(r"\1", str(value).strip())
    if not isinstance(value, bool) and text in labels:
        return labels.index(text)
    expected = " or ".join(labels) if len(labels) < 6 else f"one of {len(labels)} labels"
    raise UserError(f"{where} is {_short(value)}, expected {expected} (task {task}).")


def as_json(value: Any) -> str:
    """A structure as it is stored."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
