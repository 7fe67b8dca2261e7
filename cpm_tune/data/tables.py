"""Tables: .csv, .tsv and .txt files as rows by column, whose columns are known by their names.

A first row that looks like names is never data. What looks like another kind of file is refused
with what it looks like. A row that cannot be read is a BadRow, and reading goes on after it.
"""

from __future__ import annotations

import csv
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from cpm_tune.common.sizes import counted, shortened
from cpm_tune.data.lines import Records, numbered
from cpm_tune.errors import UserError
from cpm_tune.task import BadRow

TABLES = {".tsv": "\t", ".txt": "\t", ".csv": ","}
TALL = 10  # lines of one row, above which a warning names it
_DELIMITERS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
_MOST_LABELS = 50  # values of a column of labels
_PEEK = 21  # rows that decide whether the first one is a header
_ASCII_NAME = re.compile(r"[A-Za-z_][\w.-]{0,30}( [\w.-]{1,20}){0,2}", re.ASCII)
_CHINESE_NAME = re.compile(
    "第?[一二三两甲乙AaBb12]?[个条]?(编号|序号|标题|题目|正文|内容|文本|文章|摘要|概要|句子|语句|"
    "问题|问句|答案|回答|标签|类别|分类|标注|原文|译文|新闻|文档|文段|段落|候选|选项|目标|输入|"
    "输出|对话|回复|关键词|描述|定义|词语|结果|是否.{1,6})[（(]?[一二三四甲乙AaBb1234]?[)）]?"
)
Cells = tuple[str, list[str] | BadRow]  # a row and its place


@dataclass
class Layout:
    """What was noticed about the files of a split: whether a table has no header, or a row of many
    lines, how often a text column is empty and where first, and other warnings."""

    headless: bool = False
    tall: bool = False
    blanks: dict[str, tuple[int, str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def table(
    path: Path,
    columns: tuple[str, ...],
    aliases: Mapping[str, str],
    optional: tuple[str, ...] = (),
    layout: Layout | None = None,
) -> Records:
    """The rows of a table as dicts by column; their values are texts.

    The first row is a header if one of its cells names a column (without regard to case and to
    blanks around it). A table may lack `optional` columns, all of them where it has no header; an
    empty cell of theirs is None. Without `columns` the first row is the header whatever it says.
    Raises UserError if the file is of another kind, or its first row is names that are not known.
    """
    layout = layout or Layout()
    rows = _rows(path, TABLES[path.suffix], layout)
    head = list(islice(rows, _PEEK))
    if not head:
        return
    first = head[0][1]
    if isinstance(first, BadRow):
        raise UserError(
            f"{first.message} It is the first row, which decides whether the table has a header."
        )
    following = [cells for _, cells in head[1:] if not isinstance(cells, BadRow)]
    required = [name for name in columns if name not in optional]
    sizes = {len(required), len(columns)}
    _check_kind(path, head[0][0], first, sizes, _lookup(columns, aliases))
    header = _header(head[0][0], first, columns, aliases, optional) if columns else first
    if header is not None:
        head = head[1:]
    elif _are_names(first, following):
        raise UserError(
            f"{head[0][0]}: the first row looks like names ({', '.join(first)}), none of which is "
            f"known. Name the columns {_known(columns, aliases)}; if it is data, put such a line "
            "of names above it."
        )
    else:
        layout.headless = True
        header = required if len(first) == len(required) else list(columns)
    names = header
    for where, cells in chain(head, rows):
        if isinstance(cells, BadRow):
            yield where, cells
        elif len(cells) != len(names):
            n = counted(len(cells), "column")
            yield where, BadRow(f"{where}: {n}, expected {len(names)} ({', '.join(names)}).")
        else:
            row = zip(names, cells, strict=True)
            yield where, {k: None if k in optional and not v.strip() else v for k, v in row}


# --- rows of cells ---


class _Lines:
    """Lines of text for csv.reader; those of the current row are kept and can be read again."""

    def __init__(self, source: Iterable[tuple[int, str, BadRow | None]]) -> None:
        self._source, self._again = iter(source), deque[tuple[int, str, BadRow | None]]()
        self.taken: list[tuple[int, str, BadRow | None]] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._source)
        self.taken.append(line)
        return line[1]

    def read_again(self, after: int) -> None:
        """Give the current row's lines after that number again."""
        self._again.extendleft(line for line in reversed(self.taken) if line[0] > after)


def _rows(path: Path, delimiter: str, layout: Layout) -> Iterator[Cells]:
    """The rows that are not blank. After a quote that is not closed, reading goes on in the line
    after it."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    source = _Lines(numbered(path))
    reader = csv.reader(source, delimiter=delimiter, quoting=quoting, strict=True)
    tall, values = 0, _Values()
    while True:
        source.taken.clear()
        fault, cells = "", list[str]()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = str(error)
        last, *_ = source.taken[-1]
        where = f"{path}:{last}"
        n_lines = len(source.taken)
        if fault or (n_lines > 1 and _swallowed(source.taken, len(cells), values)):
            opened = _opened(source.taken)
            if n_lines > 1 or fault == "unexpected end of data":
                source.read_again(opened)
                where = f"{path}:{opened}"
                fault = (
                    "a quote opens here and is not closed where the cell ends; close it, or write "
                    'it twice ("") inside quotes if it is part of the text'
                )
            else:
                fault = f"not a readable row ({fault})"
            yield where, BadRow(f"{where}: {fault}.")
            continue
        bad = next((bad for *_, bad in source.taken if bad is not None), None)
        if bad is not None:
            yield where, bad
        elif any(cell.strip() for cell in cells):
            values.note(cells)
            if n_lines > TALL:
                tall += 1
                if tall == 1:
                    layout.tall = True
                    layout.warnings.append(
                        f"{path.name}:{source.taken[0][0]}: one row spans {n_lines:,} lines; is a "
                        "quote not closed there?"
                    )
            yield where, cells


def _opened(taken: Sequence[tuple[int, str, BadRow | None]]) -> int:
    """The number of the line in which the last quote that is still open at a line's end opens."""
    opened, inside = taken[0][0], False
    for number, text, _ in taken:
        if text.count('"') % 2:
            opened, inside = (opened if inside else number), not inside
    return opened


class _Values:
    """The values of columns that have few of them, as labels do."""

    def __init__(self) -> None:
        self._seen: dict[int, set[str]] = {}

    def note(self, cells: Sequence[str]) -> None:
        """Note a row's values."""
        for at, cell in enumerate(cells):
            seen = self._seen.setdefault(at, set())
            if len(seen) < _MOST_LABELS:
                seen.add(cell)

    def all_labels(self, at: int, cells: Iterable[str]) -> bool:
        """Whether these values of a column are numbers, or are known ones of few."""
        seen = self._seen.get(at, set())
        few = len(seen) < _MOST_LABELS
        return all(_is_number(cell) or (few and cell in seen) for cell in cells)


def _swallowed(
    taken: Sequence[tuple[int, str, BadRow | None]], n_cells: int, values: _Values
) -> bool:
    """Whether the lines of one row look like rows themselves, as between an unclosed quote and the
    next quote of the file. Few lines do only if a column of theirs has labels."""
    split = [text.rstrip("\r\n").split(",") for _, text, _ in taken]
    if n_cells < 2 or len(split[0]) != n_cells or len(split[-1]) != n_cells:
        return False
    alike = [cells for cells in split if len(cells) == n_cells]
    if len(split) >= 5:
        return len(alike) >= 0.8 * len(split)
    labelled = any(values.all_labels(*column) for column in enumerate(zip(*alike, strict=True)))
    return len(alike) == len(split) and labelled


# --- names ---


def _lookup(columns: Iterable[str], aliases: Mapping[str, str]) -> dict[str, str]:
    """Columns by the names they may have, in lower case."""
    names = {"id": "id"} | {alias.casefold(): name for alias, name in aliases.items()}
    return names | {name.casefold(): name for name in columns}


def renamed(names: Sequence[str], columns: Iterable[str], aliases: Mapping[str, str]) -> list[str]:
    """The columns that names stand for; unknown ones stay as they are.

    Of several names for one column its own name counts; raises ValueError if that is not there.
    """
    columns = tuple(columns)
    lookup = _lookup(columns, aliases)
    result = [lookup.get(name.strip().casefold(), name.strip()) for name in names]
    known = {"id", *columns}
    for column in {name for name in result if result.count(name) > 1 and name in known}:
        exact = [at for at, name in enumerate(names) if name.strip() == column]
        if len(exact) != 1:
            both = [name for name, meant in zip(names, result, strict=True) if meant == column]
            raise ValueError(f"{' and '.join(both)} could both be '{column}'")
        for at, name in enumerate(names):
            if result[at] == column and at != exact[0]:
                result[at] = name.strip()
    return result


def _known(columns: Iterable[str], aliases: Mapping[str, str]) -> str:
    """The columns with their other names, for a message."""
    texts = []
    for column in columns:
        others = [alias for alias, name in aliases.items() if name == column]
        texts.append(f"{column} (or {', '.join(others)})" if others else column)
    return ", ".join(texts)


def _header(
    where: str,
    cells: list[str],
    columns: tuple[str, ...],
    aliases: Mapping[str, str],
    optional: tuple[str, ...],
) -> list[str] | None:
    """Return the columns if the first row names one of them, None if it does not."""
    lookup = _lookup(columns, aliases)
    if not {lookup.get(cell.strip().casefold()) for cell in cells} & set(columns):
        return None
    if any(map(_is_number, cells)):  # a label: data that happen to be the name of a column
        return None
    try:
        names = renamed(cells, columns, aliases)
    except ValueError as error:
        raise UserError(f"{where}: {error} in the header; keep one of them.") from error
    missing = [name for name in columns if name not in (*names, *optional)]
    if missing:
        raise UserError(
            f"{where}: no column '{missing[0]}' in the header ({', '.join(cells)}), expected "
            f"{_known(columns, aliases)}."
        )
    return names


def _are_names(first: Sequence[str], following: Sequence[Sequence[str]]) -> bool:
    """Whether the first row of a table reads like the names of its columns: every cell a word that
    names things, above numbers only, or much shorter than everything below it."""
    following = [cells for cells in following if len(cells) == len(first)]
    columns = list(zip(*following, strict=True))
    if not all(cell.strip() for cell in first):
        return False
    if all(map(_is_name, first)):
        alike = sum(all(map(_is_name, cells)) for cells in following)
        if 2 * alike <= len(following):
            return True
    if len(following) < 5 or any(len(cell.strip()) > 12 for cell in first):
        return False
    numbers = [all(map(_is_number, column)) for column in columns]
    if any(
        below and not any(map(str.isdigit, cell))
        for cell, below in zip(first, numbers, strict=True)
    ):
        return True
    return not any(numbers) and all(
        2 * len(cell.strip()) <= min(len(text.strip()) for text in column)
        for cell, column in zip(first, columns, strict=True)
    )


def _is_name(cell: str) -> bool:
    return bool(_ASCII_NAME.fullmatch(cell.strip()) or _CHINESE_NAME.fullmatch(cell.strip()))


def _is_number(cell: str) -> bool:
    return bool(re.fullmatch(r"[+-]?\d+(\.\d+)?", cell.strip(), re.ASCII))


# --- files of another kind ---


def _check_kind(
    path: Path, where: str, first: list[str], sizes: set[int], lookup: Mapping[str, str]
) -> None:
    """Raise UserError if the file is JSON, or a table with another delimiter."""
    texts = [text for _, text, _ in islice(numbered(path), 2 * _PEEK) if text.strip()][:5]
    if _is_json(texts):
        endings = ".json" if texts[0].lstrip().startswith("[") else ".jsonl"
        raise UserError(f"{where}: this looks like JSON; rename the file to end in {endings}.")
    if len(first) in sizes or any(cell.strip().casefold() in lookup for cell in first):
        return
    for delimiter, name in _DELIMITERS.items():
        counts = {text.count(delimiter) + 1 for text in texts}
        known = {cell.strip(' "\r\n').casefold() for cell in texts[0].split(delimiter)} & set(
            lookup
        )
        fits = len(counts) == 1 and counts <= sizes - {1}
        if delimiter != TABLES[path.suffix] and (fits or (known and counts != {1})):
            expected = _DELIMITERS[TABLES[path.suffix]]
            ending = {"\t": ".tsv", ",": ".csv"}.get(delimiter)
            fix = f"rename it to end in {ending}" if ending else f"save it with {expected}"
            raise UserError(
                f"{where}: the columns look separated by {name} ({shortened(texts[0].strip())}), "
                f"in a {path.suffix} file {expected} were expected; {fix}."
            )


def _is_json(texts: Sequence[str]) -> bool:
    """Whether the first lines of a file begin a JSON document or are JSON objects."""
    first = texts[0].strip() if texts else ""
    if not first.startswith(("{", "[")):
        return False
    if first in ("{", "[") or re.match(r'\[\s*[{\[]\s*"', first):
        return True
    try:
        value: Any = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) or (isinstance(value, list) and bool(value))
