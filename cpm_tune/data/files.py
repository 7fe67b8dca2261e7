"""Finds and reads a task's files: checked rows with line numbers, kept in memory-mapped Arrow.

Accepted are one JSON object a line (.jsonl, .json), tab-separated text (.tsv, .txt) and .csv, the
tables with or without a header. Every fault is a UserError that names file and line.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from cpm_tune.errors import UserError
from cpm_tune.paths import cache_dir, shipped
from cpm_tune.task import SPLITS, Row, Task

JSON_LINES = (".jsonl", ".json")
TABLES = {".tsv": "\t", ".txt": "\t", ".csv": ","}
READER_VERSION = 1


@dataclass(frozen=True)
class SplitFile:
    """One split on disk and its fingerprint."""

    split: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class Split:
    """The rows of a split: `rows` is a datasets.Dataset of id, the task's text columns and `target`
    (int, the index of the row's label)."""

    file: SplitFile
    rows: Any
    n_skipped: int

    def __len__(self) -> int:
        return len(self.rows)


def sample_folder(task: Task) -> Path:
    """The folder of the data written for this project."""
    return shipped("tasks") / "sample" / task.name


def is_sample(task: Task, splits: dict[str, SplitFile]) -> bool:
    """Whether any of these files is one of the task's sample data, wherever it lies."""
    folder = sample_folder(task)
    known = (
        {_sha256(path) for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()
    )
    return any(file.sha256 in known for file in splits.values())


def find_splits(
    task: Task,
    folder: Path,
    needed: tuple[str, ...] = SPLITS,
    optional: tuple[str, ...] = (),
) -> dict[str, SplitFile]:
    """Find the file of each needed split; raise UserError for what is missing (unless optional) or
    ambiguous."""
    if not folder.is_dir():
        if folder == sample_folder(task):
            raise UserError(f"task {task.name} has no sample data; give its files with --data DIR.")
        raise UserError(f"--data {folder}: there is no such folder.")
    missing, found = [], {}
    for split in needed:
        stems = task.files.names[split]
        paths = [
            path
            for stem in stems
            for ending in (*JSON_LINES, *TABLES)
            if (path := folder / f"{stem}{ending}").is_file()
        ]
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths)
            raise UserError(f"{folder}: {names} could both be the {split} split; keep one of them.")
        if paths:
            found[split] = SplitFile(split, paths[0], _sha256(paths[0]))
        elif split not in optional:
            missing.append(f"{split} ({' or '.join(stems)})")
    if missing:
        raise UserError(
            f"{folder}: no file for {', '.join(missing)}; expected names like "
            f"{task.files.names[needed[0]][0]}.jsonl, .tsv or .csv (task {task.name})."
        )
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_split(
    task: Task, file: SplitFile, limit: int | None = None, skip_bad_rows: bool = False
) -> Split:
    """Read and check a split; the first `limit` rows if given.

    Raises UserError for the first bad row, or for a split without rows. With `skip_bad_rows`, bad
    rows are dropped and counted.
    """
    from datasets import Dataset

    key = json.dumps(
        [
            READER_VERSION,
            file.sha256,
            file.path.suffix,
            repr(task.files),
            repr(task.answer),
            task.name,
            task.version,
            limit,
            skip_bad_rows,
        ]
    )
    stored = cache_dir("data") / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.arrow"
    counted = stored.with_suffix(".skipped")
    for attempt in (1, 2):  # a damaged cache file is made again
        if attempt == 2 or not stored.is_file() or task.files.read is not None:
            _store(task, file, limit, skip_bad_rows, stored)
        try:
            rows = Dataset.from_file(str(stored))
            return Split(file, rows, int(counted.read_text()) if skip_bad_rows else 0)
        except (OSError, ValueError):  # pyarrow.ArrowInvalid is a ValueError
            if attempt == 2:
                raise
    raise AssertionError


def _store(task: Task, file: SplitFile, limit: int | None, skip: bool, stored: Path) -> None:
    """Write checked rows to an Arrow file, complete or not at all."""
    from datasets import Features, Value
    from datasets.arrow_writer import ArrowWriter

    texts = [name for name in task.files.columns if name != task.answer.column]
    features = Features(
        {"id": Value("string"), **{t: Value("string") for t in texts}, "target": Value("int32")}
    )
    n_rows = 0
    bad: list[str] | None = [] if skip else None

    with tempfile.TemporaryDirectory(dir=stored.parent) as scratch:
        part = Path(scratch) / "rows.arrow"
        writer = ArrowWriter(features=features, path=str(part))
        for row in islice(checked_rows(task, file, bad), limit):
            writer.write(row)
            n_rows += 1
        if not n_rows:
            skipped = f" ({len(bad)} bad rows skipped)" if bad else ""
            raise UserError(f"{file.path}: the {file.split} split has no rows{skipped}.")
        writer.finalize()
        if bad is not None:
            (Path(scratch) / "skipped").write_text(str(len(bad)))
            os.replace(Path(scratch) / "skipped", stored.with_suffix(".skipped"))
        os.replace(part, stored)


def checked_rows(task: Task, file: SplitFile, bad: list[str] | None = None) -> Iterator[Row]:
    """Yield a split's rows as they are on disk, checked: id, text columns, target.

    The first bad row raises UserError, unless a list is given to collect their messages.
    """
    for number, (line, row) in enumerate(_raw_rows(task, file.path)):
        try:
            if isinstance(row, _Bad):
                raise UserError(row.message)
            name = str(row.get("id", number))
            name = name if _is_utf8(name) else str(number)
            checked = {"id": name, **_check(task, file.path, line, row)}
        except UserError as error:
            if bad is None:
                raise UserError(f"{error} Mend it, or drop it with --skip-bad-rows.") from None
            bad.append(str(error))
        else:
            yield checked


@dataclass(frozen=True)
class _Bad:
    """A line that could not be read as a row."""

    message: str


def _raw_rows(task: Task, path: Path) -> Iterator[tuple[int, Row | _Bad]]:
    if task.files.read is not None:
        return iter(task.files.read(path))
    return _json_rows(path) if path.suffix in JSON_LINES else _table_rows(task, path)


def _json_rows(path: Path) -> Iterator[tuple[int, Row | _Bad]]:
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            where = f"{path}:{line}"
            try:
                text = raw.decode("utf-8-sig" if line == 1 else "utf-8").strip()
                if not text:
                    continue
                row = json.loads(text)
            except UnicodeDecodeError:
                yield line, _Bad(f"{where}: not UTF-8 text; convert the file to UTF-8.")
            except (ValueError, RecursionError) as error:
                said = str(error).split(":")[0]
                yield line, _Bad(f"{where}: not a whole JSON object on one line ({said}).")
            else:
                if isinstance(row, dict):
                    yield line, row
                else:
                    yield (
                        line,
                        _Bad(
                            f"{where}: expected one JSON object a line, found {type(row).__name__}."
                        ),
                    )


def _table_rows(task: Task, path: Path) -> Iterator[tuple[int, Row | _Bad]]:
    delimiter = TABLES[path.suffix]
    columns: list[str] | None = None
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(
            file,
            delimiter=delimiter,
            quoting=csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE,
            strict=True,
        )
        while True:
            try:
                cells = next(reader, None)
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}: not UTF-8 text after line {reader.line_num}; convert it to UTF-8."
                ) from error
            except csv.Error as error:
                raise UserError(
                    f"{path}:{reader.line_num}: not a readable row ({error})."
                ) from error
            if cells is None:
                return
            if not any(cells):
                continue
            if columns is None:
                columns = _header(task, path, cells)
                if columns is not None:
                    continue
                columns = list(task.files.columns)
            if len(cells) != len(columns):
                yield (
                    reader.line_num,
                    _Bad(
                        f"{path}:{reader.line_num}: {len(cells)} columns, expected {len(columns)} "
                        f"({', '.join(columns)})."
                    ),
                )
            else:
                yield reader.line_num, dict(zip(columns, cells, strict=True))


def _header(task: Task, path: Path, cells: list[str]) -> list[str] | None:
    """Return the columns if the first row is a header, None if it is data."""
    names = [task.files.aliases.get(cell.strip(), cell.strip()) for cell in cells]
    if not set(names) & set(task.files.columns):
        return None
    missing = [name for name in task.files.columns if name not in names]
    if missing:
        raise UserError(
            f"{path}:1: no column '{missing[0]}' in the header ({', '.join(cells)}), expected "
            f"{', '.join(task.files.columns)} (task {task.name})."
        )
    return names


def _check(task: Task, path: Path, line: int, row: Row) -> Row:
    """Return the task's text columns and the label's index, or raise UserError."""
    row = {task.files.aliases.get(key, key): value for key, value in row.items()}
    where = f"{path}:{line}"
    checked: Row = {}
    for name in task.files.columns:
        if name not in row:
            raise UserError(f"{where}: no field '{name}' (task {task.name}).")
        value = row[name]
        if name == task.answer.column:
            checked["target"] = _label(task, where, value)
        elif isinstance(value, str) and _is_utf8(value):
            checked[name] = value
        elif isinstance(value, str):
            raise UserError(f"{where}: '{name}' holds half a surrogate pair (a cut emoji).")
        else:
            raise UserError(f"{where}: '{name}' is {value!r}, expected text (task {task.name}).")
    return checked


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _label(task: Task, where: str, value: object) -> int:
    labels = task.answer.labels
    said = None if isinstance(value, bool | float) else str(value).strip()
    for index, label in enumerate(labels):
        if said == str(label):
            return index
    expected = " or ".join(map(str, labels)) if len(labels) < 6 else f"one of {len(labels)} labels"
    name = task.answer.column
    raise UserError(f"{where}: {name} is {value!r}, expected {expected} (task {task.name}).")
