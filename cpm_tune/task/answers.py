"""The gold answer of a row, and the answer that a task's parser reads in a generated text."""

from __future__ import annotations

from typing import Any

from cpm_tune.errors import UserError
from cpm_tune.task.definition import Choice, Row, Task


def gold(task: Task, row: Row) -> Any:
    """What metrics compare a prediction with: a label, an option's number, grades, gold's value."""
    answer, target = task.answer, row["target"]
    if target is None:
        return None
    if isinstance(answer, Choice):
        return answer.labels[target]
    hidden = getattr(answer, "gold", "")
    return row[hidden] if hidden and hidden != answer.column else target


def parsed(task: Task, text: str, row: Row) -> Any:
    """What the task's parser reads in a text; None where it cannot."""
    parse = getattr(task.answer, "parse", None)
    if parse is None:
        return text
    try:
        return parse(text, row)
    except ValueError:
        return None
    except Exception as error:  # a task file's own code
        raise UserError(
            f"parse() of task {task.name} failed on the text {text[:40]!r}: "
            f"{type(error).__name__}: {error}."
        ) from error


def is_withheld(value: Any) -> bool:
    """Whether a value in a file stands for no answer: none, -1, blanks, or a list or an object of
    nothing else (an empty one too)."""
    if isinstance(value, str):
        return value.strip() in ("", "-1")
    if isinstance(value, list | tuple):
        return all(map(is_withheld, value))
    if isinstance(value, dict):
        return all(map(is_withheld, value.values()))
    return value is None or (value == -1 and not isinstance(value, bool))
