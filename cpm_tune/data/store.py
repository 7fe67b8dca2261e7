"""Checked rows of a split in memory-mapped Arrow, kept in the user's cache between runs."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from cpm_tune.common.folders import FULL, disk_trouble
from cpm_tune.common.paths import cache_dir, file_sha256
from cpm_tune.common.writing import scratch_folder
from cpm_tune.data.files import as_json, checked_rows
from cpm_tune.data.mapped import MappedFile
from cpm_tune.data.oddities import Oddities
from cpm_tune.data.readers import Layout
from cpm_tune.data.splits import SplitFile
from cpm_tune.errors import UserError
from cpm_tune.task import Generate, Rank, Row, Task

READER_VERSION = 6
_CHUNK = 2_000


@dataclass(frozen=True)
class RowOrigin:
    """Which rows of a cached split a RowDataset has: row `k` is row `place(k)` of its `n`.

    `key` stands for the files' content and how they were read.
    """

    key: str
    n: int
    start: int = 0
    step: int = 1
    chosen: tuple[int, ...] | None = None  # the rows of which these are a share; None: all

    def place(self, number: int) -> int:
        """Return a row's number in the whole split."""
        number = self.start + number * self.step
        return number if self.chosen is None else self.chosen[number]

    def share(self, number: int, of: int) -> RowOrigin:
        """Return every `of`-th row, from row `number` on."""
        return replace(self, start=self.start + number * self.step, step=of * self.step)


class RowDataset:
    """Rows on disk, read when asked for: a list of dicts that takes no memory."""

    def __init__(
        self, dataset: Any, structures: Sequence[str], origin: RowOrigin | None = None
    ) -> None:
        self._dataset, self._structures = dataset, tuple(structures)
        self._files = [MappedFile(file["filename"]) for file in dataset.cache_files]
        self.origin = origin

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Row]:
        for start in range(0, len(self), _CHUNK):
            yield from self.at(range(start, min(start + _CHUNK, len(self))))

    def at(self, numbers: Sequence[int]) -> list[Row]:
        """Rows by number, in that order."""
        columns = self._dataset[list(numbers)]
        self._count(len(numbers))
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
        targets = list(self._dataset["target"])
        self._count(len(targets))
        return targets

    def _count(self, rows: int) -> None:
        for file in self._files:
            file.count(rows)

    def share(self, number: int, of: int) -> RowDataset:
        """Every `of`-th row, from row `number` on."""
        if of == 1:
            return self
        origin = None if self.origin is None else self.origin.share(number, of)
        chosen = self._dataset.select(range(number, len(self), of))
        return RowDataset(chosen, self._structures, origin)

    def select(self, numbers: Sequence[int]) -> RowDataset:
        """The rows of these numbers, in that order."""
        origin = self.origin
        if origin is not None:
            places = tuple(map(origin.place, numbers))
            origin = RowOrigin(origin.key, origin.n, chosen=places)
        return RowDataset(self._dataset.select(numbers), self._structures, origin)

    def first(self, n: int | None) -> RowDataset:
        """The first `n` rows (None: all)."""
        if n is None or n >= len(self):
            return self
        return RowDataset(self._dataset.select(range(n)), self._structures, self.origin)


@dataclass(frozen=True)
class Split:
    """The rows of a split. `labelled` is False if answers are missing; `warnings` say what is odd
    about its files."""

    file: SplitFile
    rows: RowDataset
    n_skipped: int
    labelled: bool
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)


def read_split(
    task: Task, file: SplitFile, limit: int | None = None, skip_bad_rows: bool = False
) -> Split:
    """Read and check a split; the first `limit` rows if given.

    Raises UserError for the first bad row, or for a split without rows. With `skip_bad_rows`, bad
    rows are dropped and counted.
    """
    key = [READER_VERSION, file.sha256, [p.suffix for p in file.paths], file.split, limit]
    key += [skip_bad_rows, task.name, task.version, _reading(task)]
    key += [file.source] if file.source else []
    stored = cache_dir("data") / f"{hashlib.sha256(as_json(key).encode()).hexdigest()[:32]}.arrow"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # absent or damaged
        return _stored_split(task, file, stored)  # pyarrow.ArrowInvalid is a ValueError
    _store(task, file, limit, skip_bad_rows, stored)
    return _stored_split(task, file, stored)


def _stored_split(task: Task, file: SplitFile, stored: Path) -> Split:
    from datasets import Dataset

    about = json.loads(stored.with_suffix(".json").read_text(encoding="utf-8"))
    dataset = Dataset.from_file(str(stored))
    rows = RowDataset(dataset, _structures(task), RowOrigin(stored.stem, len(dataset)))
    warnings = tuple(map(str, about["warnings"]))
    return Split(file, rows, int(about["skipped"]), bool(about["labelled"]), warnings)


def _reading(task: Task) -> list[Any]:
    """What decides how files become rows: their format, and the source of the functions in it."""
    files = task.files
    answer = {k: v for k, v in vars(task.answer).items() if not callable(v)}
    parts: list[Any] = [task.answer_kind, sorted(answer.items()), sorted(files.aliases.items())]
    parts += [files.columns, files.texts, files.structures]
    for function in (files.rows, files.read):
        try:
            source = None if function is None else inspect.getsourcefile(function)
            parts.append(file_sha256(Path(source)) if source else None)
        except TypeError:  # a callable without a source file: never taken from the cache
            parts.append(os.urandom(8).hex())
    return parts


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


def _store(task: Task, file: SplitFile, limit: int | None, skip: bool, stored: Path) -> None:
    """Write checked rows to an Arrow file and what was counted to a JSON file, both atomically."""
    import pyarrow as pa

    schema, structures = _schema(task), _structures(task)
    bad: list[str] | None = [] if skip else None
    n_rows, answered = 0, 0
    without = ""  # the id of the first row that has no answer
    layout, oddities = Layout(), Oddities(task)
    advice = "make room there, or set XDG_CACHE_HOME to another folder"
    with (
        disk_trouble(f"the cache folder {stored.parent}", advice, FULL),
        scratch_folder(stored.parent) as scratch,
    ):
        part = scratch / "rows.arrow"
        rows = islice(checked_rows(task, file, bad, layout), limit)
        with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            while chunk := list(islice(rows, _CHUNK)):
                columns = {name: [row[name] for row in chunk] for name in schema.names}
                for name in structures:
                    columns[name] = [None if v is None else as_json(v) for v in columns[name]]
                writer.write_batch(pa.RecordBatch.from_pydict(columns, schema))
                n_rows += len(chunk)
                oddities.note(columns)
                answered += sum(target is not None for target in columns["target"])
                if not without and None in columns["target"]:
                    without = columns["id"][columns["target"].index(None)]
        if not n_rows:
            skipped = f" ({len(bad)} bad rows skipped)" if bad else ""
            raise UserError(f"{file.path}: {file.without_rows}{skipped}.")
        if answered not in (0, n_rows):
            raise UserError(
                f"{file.path}: {n_rows - answered:,} of {n_rows:,} rows have no "
                f"'{task.answer.column}', the first of them with id {without}; expected all or "
                f"none (task {task.name})."
            )
        about = scratch / "about.json"
        warnings = [f"{file.split}: {warning}" for warning in oddities.warnings(layout)]
        counts = {"skipped": len(bad or ()), "labelled": answered > 0, "warnings": warnings}
        about.write_text(as_json(counts), encoding="utf-8")
        os.replace(about, stored.with_suffix(".json"))
        os.replace(part, stored)
