"""Checked rows of a split in memory-mapped Arrow, kept in the user's cache between runs."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from cpm_tune.common.paths import cache_dir, file_sha256
from cpm_tune.data.files import as_json, checked_rows
from cpm_tune.data.splits import SplitFile
from cpm_tune.errors import UserError
from cpm_tune.task import Generate, Rank, Row, Task

READER_VERSION = 3
_CHUNK = 2_000


@dataclass(frozen=True)
class Source:
    """Which rows of a file these are: number `k` is row `start + k * step` of `n`. `key` stands for
    the file's content and how it was read."""

    key: str
    n: int
    start: int = 0
    step: int = 1


class RowDataset:
    """Rows on disk, read when asked for. A list of dicts in all but memory."""

    def __init__(
        self, dataset: Any, structures: Sequence[str], source: Source | None = None
    ) -> None:
        self._dataset, self._structures = dataset, tuple(structures)
        self.source = source

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Row]:
        for start in range(0, len(self), _CHUNK):
            yield from self.at(range(start, min(start + _CHUNK, len(self))))

    def at(self, numbers: Sequence[int]) -> list[Row]:
        """Rows by number, in that order."""
        columns = self._dataset[list(numbers)]
        rows = [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]
        for name in self._structures:
            for row in rows:
                row[name] = None if row[name] is None else json.loads(row[name])
        return rows

    def targets(self) -> list[Any]:
        """The `target` of every row."""
        return list(self._dataset["target"])

    def share(self, number: int, of: int) -> RowDataset:
        """Every `of`-th row, from row `number` on."""
        if of == 1:
            return self
        at = self.source
        if at is not None:
            at = replace(at, start=at.start + number * at.step, step=of * at.step)
        return RowDataset(self._dataset.select(range(number, len(self), of)), self._structures, at)

    def first(self, n: int | None) -> RowDataset:
        """The first `n` rows (None: all)."""
        if n is None or n >= len(self):
            return self
        return RowDataset(self._dataset.select(range(n)), self._structures, self.source)


@dataclass(frozen=True)
class Split:
    """The rows of a split. `labelled` is False where answers are missing."""

    file: SplitFile
    rows: RowDataset
    n_skipped: int
    labelled: bool

    def __len__(self) -> int:
        return len(self.rows)


def read_split(
    task: Task, file: SplitFile, limit: int | None = None, skip_bad_rows: bool = False
) -> Split:
    """Read and check a split; the first `limit` rows if given.

    Raises UserError for the first bad row, or for a split without rows. With `skip_bad_rows`, bad
    rows are dropped and counted.
    """
    from datasets import Dataset

    key = [READER_VERSION, file.sha256, [p.suffix for p in file.paths], file.split, limit]
    key += [skip_bad_rows, task.name, task.version, _said(task)]
    stored = cache_dir("data") / f"{hashlib.sha256(as_json(key).encode()).hexdigest()[:32]}.arrow"
    counted = stored.with_suffix(".json")
    for attempt in (1, 2):  # a damaged cache file is made again
        if attempt == 2 or not stored.is_file() or not counted.is_file():
            _store(task, file, limit, skip_bad_rows, stored, counted)
        try:
            dataset = Dataset.from_file(str(stored))
            rows = RowDataset(dataset, _structures(task), Source(stored.stem, len(dataset)))
            about = json.loads(counted.read_text())
            return Split(file, rows, int(about["skipped"]), bool(about["labelled"]))
        except (OSError, ValueError, KeyError, TypeError):  # pyarrow.ArrowInvalid is a ValueError
            if attempt == 2:
                raise
    raise AssertionError


def _said(task: Task) -> list[Any]:
    """What decides how files become rows: the layout, and the source of the functions in it."""
    files = task.files
    answer = {k: v for k, v in vars(task.answer).items() if not callable(v)}
    said: list[Any] = [task.answer_kind, sorted(answer.items()), sorted(files.aliases.items())]
    said += [files.columns, files.texts, files.structures]
    for function in (files.rows, files.read):
        try:
            source = None if function is None else inspect.getsourcefile(function)
            said.append(file_sha256(Path(source)) if source else None)
        except TypeError:  # a callable without a source file: never taken from the cache
            said.append(os.urandom(8).hex())
    return said


def _structures(task: Task) -> list[str]:
    return [name for name in task.files.structures if name != task.answer.column]


def _schema(task: Task) -> Any:
    import pyarrow as pa

    fields = [("id", pa.string())]
    for name in task.files.columns:
        if name != task.answer.column:
            listed = name in task.files.texts
            fields.append((name, pa.list_(pa.string()) if listed else pa.string()))
    kinds = {Generate: pa.string(), Rank: pa.list_(pa.float64())}
    fields.append(("target", kinds.get(type(task.answer), pa.int32())))
    return pa.schema(fields)


def _store(
    task: Task, file: SplitFile, limit: int | None, skip: bool, stored: Path, counted: Path
) -> None:
    """Write checked rows to an Arrow file, complete or not at all."""
    import pyarrow as pa

    schema, structures = _schema(task), _structures(task)
    bad: list[str] | None = [] if skip else None
    n_rows, answered = 0, 0
    without = ""  # the id of the first row that has no answer
    with tempfile.TemporaryDirectory(dir=stored.parent) as scratch:
        part = Path(scratch) / "rows.arrow"
        rows = islice(checked_rows(task, file, bad), limit)
        with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            while chunk := list(islice(rows, _CHUNK)):
                columns = {name: [row[name] for row in chunk] for name in schema.names}
                for name in structures:
                    columns[name] = [None if v is None else as_json(v) for v in columns[name]]
                writer.write_batch(pa.RecordBatch.from_pydict(columns, schema))
                n_rows += len(chunk)
                answered += sum(target is not None for target in columns["target"])
                if not without and None in columns["target"]:
                    without = columns["id"][columns["target"].index(None)]
        if not n_rows:
            skipped = f" ({len(bad)} bad rows skipped)" if bad else ""
            raise UserError(f"{file.path}: the {file.split} split has no rows{skipped}.")
        if answered not in (0, n_rows):
            raise UserError(
                f"{file.path}: {n_rows - answered:,} of {n_rows:,} rows have no "
                f"'{task.answer.column}', the first of them with id {without}; expected all or "
                f"none (task {task.name})."
            )
        about = Path(scratch) / "about.json"
        about.write_text(as_json({"skipped": len(bad or ()), "labelled": answered > 0}))
        os.replace(about, counted)
        os.replace(part, stored)
