"""Rows as an encoder encodes them, each encoded once: kept in the user's cache between runs.

A file holds the rows of one split for one use, in the order of the rows: what was encoded so far,
which may be a part of them. It is written beside and renamed, and read record by record, each with
a checksum; a record or a file that is not right is as good as absent. Files are read, not mapped
into memory: one that somebody cuts short must not end the process. What is encoded in this process
goes to a nameless file first, so memory holds 16 bytes a row and a killed process leaves nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import tempfile
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import IO, Literal

import numpy as np

from cpm_tune.common.paths import PACKAGE, cache_dir, file_sha256
from cpm_tune.data.encode import Encoder, Example, Target
from cpm_tune.data.encode import Sequence as Encoded
from cpm_tune.data.files import as_json
from cpm_tune.data.store import Rows
from cpm_tune.task import Row

Use = Literal["train", "score", "prefix"]

_FORMAT = b"cpm-tune encoded 1\n"
_INDEX = np.dtype([("at", "<i8"), ("size", "<u4"), ("crc", "<u4")])  # size 0: not encoded yet
_END = struct.Struct("<qI")  # rows, CRC-32 of the index that stands before this
_CHUNK = 2_000
_CODE = ("data/encode.py", "data/encoded.py", "backbone/tokenizer.py", "task/template.py")


def encoded(rows: Iterable[Row], encoder: Encoder, use: Use) -> Iterator[tuple[Row, Example]]:
    """Yield each row with its example, in order; from the cache where the rows are a split's.

    Use: "train" and "score" are `Encoder.encode` with and without `train`; "prefix" is
    `Encoder.prefix`, as an example of one sequence without candidates.
    """
    if not isinstance(rows, Rows):
        for row in rows:
            yield row, _encode(encoder, row, use)
        return
    for start in range(0, len(rows), _CHUNK):
        numbers = range(start, min(start + _CHUNK, len(rows)))
        chunk = rows.at(numbers)
        yield from zip(chunk, _examples(rows, numbers, encoder, use, chunk), strict=True)


def encoded_at(rows: Rows, numbers: Sequence[int], encoder: Encoder, use: Use) -> list[Example]:
    """The examples of rows by number, in that order. Rows are read where there are none yet."""
    return _examples(rows, numbers, encoder, use, None)


def keep_encoded(encoder: Encoder) -> None:
    """Leave in the cache what this encoder encoded; what is whole was left there before."""
    for store in encoder.stores.values():
        store.publish()


def _encode(encoder: Encoder, row: Row, use: Use) -> Example:
    if use == "prefix":
        ids, truncated = encoder.prefix(row)
        return Example(str(row["id"]), (Encoded(ids, len(ids)),), (), -1, truncated)
    return encoder.encode(row, train=use == "train")


def _examples(
    rows: Rows, numbers: Sequence[int], encoder: Encoder, use: Use, read: list[Row] | None
) -> list[Example]:
    if rows.source is None:
        own = rows.at(numbers) if read is None else read
        return [_encode(encoder, row, use) for row in own]
    store = encoder.stores.get((rows.source.key, use))
    if store is None:
        path = cache_dir("encoded") / f"{_key(rows, encoder, use)}.bin"
        store = encoder.stores[rows.source.key, use] = Store(path, rows.source.n)
    places = [rows.source.start + rows.source.step * number for number in numbers]
    known = {place: example for place in places if (example := store.get(place)) is not None}
    absent = [k for k, place in enumerate(places) if place not in known]
    if absent:
        own = rows.at([numbers[k] for k in absent]) if read is None else [read[k] for k in absent]
        for k, row in zip(absent, own, strict=True):
            example = known[places[k]] = _encode(encoder, row, use)
            store.put(places[k], example)
        if store.whole:
            store.publish()
    return [known[place] for place in places]


@cache
def _code() -> list[str]:
    from importlib.metadata import version

    return [version("jieba"), *(file_sha256(PACKAGE / name) for name in _CODE)]


def _key(rows: Rows, encoder: Encoder, use: Use) -> str:
    assert rows.source is not None
    said = [use, rows.source.key, rows.source.n, encoder.said(), _code()]
    return hashlib.sha256(as_json(said).encode()).hexdigest()


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


class Store:
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
