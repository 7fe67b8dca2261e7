"""Encoded rows on disk: a file of records with an index, whole or absent, each record checked.

A file has a header that repeats its name, the records, the index, and the index's own checksum. Not
Arrow's format: it has no checksums, and reads batches of rows, where training wants single ones.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import tempfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from pydantic_core import from_json, to_json

from cpm_tune.backbone.example import Answer, Example
from cpm_tune.common.writing import scratch_folder

_FORMAT = b"cpm-tune encoded 5\n"
_INDEX = np.dtype([("at", "<i8"), ("size", "<u4"), ("crc", "<u4")])  # size 0: no such record
_END = struct.Struct("<qI")  # rows, CRC-32 of the index before it
_BLOCK = 2**26  # bytes written at once: a system may take 2 GiB at most
_INDEXED = 2_000  # rows of an index that are written in the time in which one row is encoded


def to_bytes(example: Example) -> bytes:
    """Return an example as JSON without field names."""
    candidates = [(answer.context, answer.ids, answer.lead) for answer in example.candidates]
    numbers = example.gold, example.truncated, example.dropped
    return to_json((example.id, example.contexts, candidates, *numbers))


def from_bytes(raw: bytes) -> Example:
    """Return the example that `to_bytes` was given."""
    id_, contexts, candidates, gold, truncated, dropped = from_json(raw, cache_strings="none")
    return Example(
        id_,
        tuple(map(tuple, contexts)),
        tuple(Answer(context, tuple(ids), lead) for context, ids, lead in candidates),
        gold,
        truncated,
        dropped,
    )


class _Records:
    """Up to `n` records by number, in a file without buffer; without a file there are none."""

    def __init__(
        self, n: int, file: IO[bytes] | None = None, index: np.ndarray | None = None
    ) -> None:
        self.file, self.end, self.damaged = file, 0, False
        self.index = np.zeros(n, _INDEX) if index is None else index
        self.n = 0 if index is None else int(np.count_nonzero(index["size"]))

    def __del__(self) -> None:
        if self.file is not None:
            self.file.close()

    def get(self, number: int) -> bytes | None:
        """Return a record; None if it is absent, or no longer what was written."""
        at, size, crc = self.index[number].item()
        if not size or self.file is None:
            return None
        with contextlib.suppress(OSError):
            raw = os.pread(self.file.fileno(), size, at)
            if len(raw) == size and zlib.crc32(raw) == crc:
                return raw
        self.index["size"][number] = 0
        self.n, self.damaged = self.n - 1, True
        return None

    def append(self, number: int, record: bytes) -> None:
        """Write a record at the end; raise OSError if it cannot be written whole."""
        at = self.write(record)
        self.n += not self.index["size"][number]
        self.index[number] = (at, len(record), zlib.crc32(record))

    def write(self, raw: bytes | memoryview) -> int:
        """Write at the end and return where that was; raise OSError if it is not all written."""
        assert self.file is not None
        if os.pwrite(self.file.fileno(), raw, self.end) < len(raw):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.end += len(raw)
        return self.end - len(raw)


def _open(path: Path, n: int) -> _Records:
    """Return the records of a file, none if it is not a whole file of `n` rows with this name."""
    with contextlib.suppress(OSError, struct.error), contextlib.ExitStack() as opened:
        file = opened.enter_context(path.open("rb", buffering=0))
        head, size = _head(path), os.fstat(file.fileno()).st_size
        rows, of = _END.unpack(os.pread(file.fileno(), _END.size, max(0, size - _END.size)))
        if rows != n or file.read(len(head)) != head:
            return _Records(n)
        index = np.empty(n, _INDEX)
        at = size - _END.size - index.nbytes
        file.seek(max(0, at))
        if file.readinto(index.view(np.uint8)) == index.nbytes and zlib.crc32(index) == of:  # type: ignore[arg-type]
            opened.pop_all()
            return _Records(n, file, index)
    return _Records(n)


def _head(path: Path) -> bytes:
    return _FORMAT + path.stem.encode() + b"\n"


class EncodedCache:
    """The examples of a split: those in the file `path`, if there is one, and those put since.

    A disk that is full or fails raises nothing: rows are then just not cached.
    """

    def __init__(self, path: Path, n: int) -> None:
        self._path, self._n = path, n
        self._old, self._new = _open(path, n), _Records(n)

    @property
    def whole(self) -> bool:
        """Whether every row is there."""
        return self._old.n + self._new.n >= self._n

    def get(self, number: int) -> Example | None:
        """Return a row's example, or None if it has to be encoded."""
        raw = self._record(number)
        return None if raw is None else from_bytes(raw)

    def _record(self, number: int) -> bytes | None:
        return self._new.get(number) or self._old.get(number)

    def put(self, number: int, example: Example) -> None:
        """Keep a row's example, in a nameless file until `publish`."""
        with contextlib.suppress(OSError):
            if self._new.file is None:
                self._new.file = tempfile.TemporaryFile(dir=self._path.parent, buffering=0)  # noqa: SIM115
            self._new.append(number, to_bytes(example))

    def publish(self) -> None:
        """Write all known rows to the cache file, with those that others wrote there meanwhile.

        A file is not written again for a few more rows, unless it is damaged or they complete it;
        nor for so few that encoding them again takes less time than its index.
        """
        damaged = self._old.damaged or self._new.damaged
        if not damaged and self._new.n * _INDEXED < self._n:
            return
        there = _open(self._path, self._n)
        added = np.count_nonzero((self._new.index["size"] > 0) & (there.index["size"] == 0))
        few = added * 8 < there.n and added + there.n < self._n
        if not damaged and (not added or few):
            return
        with (
            contextlib.suppress(OSError),
            scratch_folder(self._path.parent) as scratch,
        ):
            part = scratch / self._path.name
            merged = _Records(self._n, part.open("wb", buffering=0))
            merged.write(_head(self._path))
            known = self._old.index["size"] | self._new.index["size"] | there.index["size"]
            for number in np.flatnonzero(known).tolist():
                if record := self._record(number) or there.get(number):
                    merged.append(number, record)
            index = memoryview(merged.index.view(np.uint8))  # type: ignore[arg-type]
            for start in range(0, len(index), _BLOCK):
                merged.write(index[start : start + _BLOCK])
            merged.write(_END.pack(self._n, zlib.crc32(index)))
            os.replace(part, self._path)
            self._old, self._new = _open(self._path, self._n), _Records(self._n)
