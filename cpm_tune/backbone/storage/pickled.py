"""Reads what torch.save wrote without unpickling it: plain values, and where tensors are.

No code of a file can run (`cpm_tune.backbone.storage.operations`), and a checkpoint's weights can
be read next to anything, in time and memory bounded by the file. Both of torch's formats: zip
files, and those from before 1.6.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import torch

from cpm_tune.backbone.storage.operations import Opaque, Storage, StoredTensor, interpret

__all__ = ["Opaque", "Placed", "read_pickled"]
MAX_BYTES = 64 * 2**20  # of a zip file's pickle
_MAGIC = 0x1950A86A20F9469CFC6C
_LOCAL_HEADER = 30


@dataclass(frozen=True)
class Placed:
    """A tensor in a file: its bytes begin at `offset`, `available` values of its dtype follow."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    available: int

    @property
    def contiguous(self) -> bool:
        """Whether its values follow each other in the file."""
        expected = 1
        for size, step in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if size != 1 and step != expected:
                return False
            expected *= size
        return True


def read_pickled(path: Path) -> Any:
    """Return the value that torch.save wrote: dicts (their keys text or numbers), lists, tuples,
    plain values, tensors as `Placed`, and `Opaque` for the rest.

    Raises OSError, and ValueError for a file that is none of torch's, corrupt or too large.
    """
    with path.open("rb") as file:
        begins = file.read(4)
        file.seek(0)
        try:
            value, place = (_zipped if begins[:2] == b"PK" else _in_sequence)(file)
            return _placed(value, place)
        except (zipfile.BadZipFile, IndexError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"corrupt ({error})") from error
        except (OverflowError, MemoryError, RuntimeError, EOFError, struct.error) as error:
            raise ValueError(f"corrupt ({type(error).__name__})") from error


# --- the two formats ---


def _zipped(file: IO[bytes]) -> tuple[Any, Callable[[Storage], int]]:
    with zipfile.ZipFile(file) as archive:
        records = {record.filename: record for record in archive.infolist()}
        main = next((name for name in records if name.rpartition("/")[2] == "data.pkl"), None)
        if main is None:
            raise ValueError("a zip file without torch's data.pkl")
        folder = main.removesuffix("data.pkl")
        if records[main].file_size > MAX_BYTES:
            raise ValueError(f"its pickle is larger than {MAX_BYTES // 2**20} MiB")
        order = records.get(f"{folder}byteorder")
        for record in [records[main], *([order] if order else [])]:
            _check_plain(record)
        if order is not None and order.file_size < 100 and archive.read(order) != b"little":
            raise ValueError("not in little-endian byte order")
        with archive.open(main) as pickle:
            value = interpret(pickle)

    def place(storage: Storage) -> int:
        record = records[f"{folder}data/{storage.key}"]
        _check_plain(record)
        if record.file_size < storage.numel * storage.dtype.itemsize:
            raise ValueError(f"{record.filename} is too short")
        file.seek(record.header_offset)
        header = file.read(_LOCAL_HEADER)
        after = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        return record.header_offset + _LOCAL_HEADER + after

    return value, place


def _check_plain(record: zipfile.ZipInfo) -> None:
    if record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1:
        raise ValueError("compressed or encrypted")


def _in_sequence(file: IO[bytes]) -> tuple[Any, Callable[[Storage], int]]:
    """Before torch 1.6: five pickles, then every storage's number of values and bytes."""
    if interpret(file) != _MAGIC:
        raise ValueError("not written by torch.save")
    interpret(file)  # protocol
    about = interpret(file)
    if not (isinstance(about, dict) and about.get("little_endian") is True):
        raise ValueError("not in little-endian byte order")
    storages: dict[str, Storage] = {}
    value = interpret(file, storages)
    places: dict[str, int] = {}
    for key in interpret(file):
        storage = storages[key]
        if int.from_bytes(file.read(8), "little") != storage.numel:
            raise ValueError("corrupt storages")
        places[key] = file.tell()
        file.seek(storage.numel * storage.dtype.itemsize, 1)
    return value, lambda storage: places[storage.key]


def _placed(value: Any, place: Callable[[Storage], int]) -> Any:
    """Say where tensors are: those in dicts, and in dicts in them."""
    done: dict[int, Any] = {}  # by identity: a dict may be in many places, and in itself

    def visit(value: Any) -> Any:
        if isinstance(value, StoredTensor):
            return _checked(value, place)
        if not isinstance(value, dict):
            return value
        if id(value) not in done:
            made: dict[Any, Any] = {}
            done[id(value)] = made
            made.update((key, visit(inner)) for key, inner in value.items())
        return done[id(value)]

    return visit(value)


def _checked(tensor: StoredTensor, place: Callable[[Storage], int]) -> Placed:
    """Raises ValueError if a tensor has more values than its storage."""
    storage, shape, stride = tensor.storage, tensor.shape, tensor.stride
    last = tensor.start + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if 0 in shape:
        return Placed(storage.dtype, shape, stride, 0, 0)
    if last >= storage.numel or prod(shape) > storage.numel:
        raise ValueError("a tensor is larger than its storage")
    offset = place(storage) + tensor.start * storage.dtype.itemsize
    return Placed(storage.dtype, shape, stride, offset, storage.numel - tensor.start)
