"""Encoded rows on disk: a file of records with an index, whole or absent, each record checked."""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
import zlib
from array import array
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np

from cpm_tune.data.example import Example, Target
from cpm_tune.data.example import Sequence as Encoded

_FORMAT = b"cpm-tune encoded 1\n"
_INDEX = np.dtype([("at", "<i8"), ("size", "<u4"), ("crc", "<u4")])  # size 0: not encoded yet
_END = struct.Struct("<qI")  # rows, CRC-32 of the index that stands before this


def to_bytes(example: Example) -> bytes:
    """An example as int32: head, sequences, candidates' sizes, targets, ids; then its id."""
    sequences, candidates = example.sequences, example.candidates
    values = array("i", (example.gold, example.truncated, len(sequences), len(candidates)))
    for sequence in sequences:
        values.extend((len(sequence.ids), sequence.n_context))
    values.extend(map(len, candidates))
    for target in chain.from_iterable(candidates):
        values.extend((target.sequence, target.position, target.token))
    for sequence in sequences:
        values.extend(sequence.ids)
    return struct.pack("<I", len(values)) + values.tobytes() + example.id.encode()


def from_bytes(raw: bytes) -> Example:
    """What `to_bytes` was given."""
    end = 4 + 4 * int.from_bytes(raw[:4], "little")
    values = memoryview(raw)[4:end].cast("i").tolist()
    gold, truncated, n_sequences, n_candidates = values[:4]
    sizes = 4 + 2 * n_sequences
    at = sizes + n_candidates
    candidates = []
    for size in values[sizes:at]:
        candidates.append(tuple(Target(*values[k : k + 3]) for k in range(at, at + 3 * size, 3)))
        at += 3 * size
    sequences = []
    for k in range(4, sizes, 2):
        sequences.append(Encoded(tuple(values[at : at + values[k]]), values[k + 1]))
        at += values[k]
    return Example(raw[end:].decode(), tuple(sequences), tuple(candidates), gold, bool(truncated))


class _File:
    """Records in an open file, and where each is."""

    def __init__(self, file: IO[bytes], index: np.ndarray) -> None:
        self.file, self.index, self.lost = file, index, 0

    def __del__(self) -> None:
        self.file.close()

    def record(self, place: int) -> bytes | None:
        at, size, crc = self.index[place].item()
        if not size:
            return None
        with contextlib.suppress(OSError):
            raw = os.pread(self.file.fileno(), size, at)
            if len(raw) == size and zlib.crc32(raw) == crc:
                return raw
        self.index["size"][place] = 0
        self.lost += 1
        return None

    @property
    def n(self) -> int:
        return int(np.count_nonzero(self.index["size"]))


def _open(path: Path, n: int) -> _File | None:
    """The records of a file, or None where it is not a whole one of `n` rows of this key."""
    try:
        file = path.open("rb")
    except OSError:
        return None
    with contextlib.suppress(OSError, ValueError, struct.error):
        head, tail = _head(path), n * _INDEX.itemsize + _END.size
        if file.read(len(head)) == head:
            file.seek(-tail, os.SEEK_END)
            raw = file.read(tail)
            if _END.unpack(raw[-_END.size :]) == (n, zlib.crc32(raw[: -_END.size])):
                return _File(file, np.frombuffer(raw[: -_END.size], _INDEX).copy())
    file.close()
    return None


def _head(path: Path) -> bytes:
    return _FORMAT + path.stem.encode() + b"\n"


class EncodedCache:
    """The examples of a split: in the file `path` if there is one, and those put since.

    Whatever the disk refuses, it is as if nothing was kept.
    """

    def __init__(self, path: Path, n: int) -> None:
        self._path, self._n = path, n
        self._old = _open(path, n)
        self._new: _File | None = None
        self._end = 0
        self._missing = n - (self._old.n if self._old else 0)

    @property
    def whole(self) -> bool:
        """Whether every row is there."""
        return self._missing + self._lost <= 0

    @property
    def _lost(self) -> int:
        return sum(source.lost for source in (self._new, self._old) if source is not None)

    def get(self, place: int) -> Example | None:
        """A row's example, or None where it has to be encoded."""
        raw = self._record(place)
        return None if raw is None else from_bytes(raw)

    def _record(self, place: int) -> bytes | None:
        for source in (self._new, self._old):
            raw = source.record(place) if source is not None else None
            if raw is not None:
                return raw
        return None

    def put(self, place: int, example: Example) -> None:
        """Keep a row's example until `publish`."""
        raw = to_bytes(example)
        with contextlib.suppress(OSError):
            if self._new is None:
                file = tempfile.TemporaryFile(dir=self._path.parent, buffering=0)  # noqa: SIM115
                self._new = _File(file, np.zeros(self._n, _INDEX))
            if os.pwrite(self._new.file.fileno(), raw, self._end) == len(raw):
                self._new.index[place] = (self._end, len(raw), zlib.crc32(raw))
                self._end += len(raw)
                self._missing -= 1

    def publish(self) -> None:
        """Write all that is known into the cache file, with what others wrote there meanwhile,
        unless it is little more than is there: a file is not written again for a few rows."""
        if self._new is None:
            return
        there = _open(self._path, self._n)
        known = self._new.index["size"] > 0
        added = int(np.count_nonzero(known & (there.index["size"] == 0) if there else known))
        whole = self._n - (there.n if there else 0) <= added
        few = there is not None and added * 8 < there.n and not whole
        if not self._lost and (added == 0 or few):
            return
        with contextlib.suppress(OSError):
            descriptor, name = tempfile.mkstemp(".part", dir=self._path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    self._write(file, there)
                os.replace(name, self._path)
            except BaseException:
                Path(name).unlink()
                raise
            self._old, self._new, self._end = _open(self._path, self._n), None, 0
            self._missing = self._n - (self._old.n if self._old else 0)

    def _write(self, file: IO[bytes], there: _File | None) -> None:
        index = np.zeros(self._n, _INDEX)
        at = file.write(_head(self._path))
        for place in range(self._n):
            raw = self._record(place)
            if raw is None and there is not None:
                raw = there.record(place)
            if raw is not None:
                index[place] = (at, len(raw), zlib.crc32(raw))
                at += file.write(raw)
        file.write(index.tobytes())
        file.write(_END.pack(self._n, zlib.crc32(index.tobytes())))
