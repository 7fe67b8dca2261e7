"""The texts of a row as shortcuts and overlap checks see them: fields, units, a normal form."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Sequence

from cpm_tune.data.store import RowDataset
from cpm_tune.task import Options, Rank, Row, Task

_UNIT = re.compile(r"[a-z0-9]+|\S")
_NO_LETTER = re.compile(r"[\W_]+")


def fields(task: Task) -> tuple[str, ...]:
    """The columns that a template may show, but for the options of a row."""
    listed = option_column(task)
    return tuple(name for name in task.shown if name != listed)


def option_column(task: Task) -> str:
    """The column with a row's options or documents; "" if the task has none."""
    return task.answer.options if isinstance(task.answer, Options | Rank) else ""


def texts(names: Sequence[str], row: Row) -> list[str]:
    """A row's texts, one per column; the texts of a list are lines of one."""
    values = [row[name] for name in names]
    return ["\n".join(v) if isinstance(v, list) else v or "" for v in values]


def units(text: str) -> list[str]:
    """A text's words in lower case, a Chinese character or a sign being a word of its own."""
    return _UNIT.findall(text.lower())


def normalised(text: str) -> str:
    """A text without punctuation and spaces; case and width of letters do not count."""
    return _NO_LETTER.sub("", unicodedata.normalize("NFKC", text).casefold())


def sample(rows: RowDataset, most: int) -> list[int]:
    """The numbers of all rows, or of `most` of them: always the same ones, in order."""
    n = len(rows)
    return list(range(n)) if n <= most else sorted(random.Random(0).sample(range(n), most))
