"""Reads what torch.save wrote without unpickling it: plain values, and where tensors are.

A pickle is a program that can call anything. Here its operations are only interpreted for what
plain values and tensors need; whatever else it builds (random states, arguments, code) becomes an
`Opaque`, and nothing is imported or called. So a checkpoint's weights can be read next to anything,
in time and memory bounded by the file. Both of torch's formats: zip files, and those from before
1.6.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import torch

MAX_OPERATIONS = 500_000  # 15,000 tensors have as many; more takes seconds
MAX_DIMS = 64
MAX_BYTES = 64 * 2**20  # of a zip file's pickle
_MAGIC = 0x1950A86A20F9469CFC6C
_LOCAL_HEADER = 30
_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
_PUT = {"PUT", "BINPUT", "LONG_BINPUT"}
_GET = {"GET", "BINGET", "LONG_BINGET"}
_PLAIN = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class Opaque:
    """A value that is not read, such as an object of a class."""


@dataclass(frozen=True)
class _Name:
    """What a pickle calls something of a module."""

    module: str
    name: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype
    numel: int


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


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    start: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


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
        except (OverflowError, MemoryError, RecursionError, NotImplementedError) as error:
            raise ValueError(f"corrupt ({type(error).__name__})") from error


# --- the two formats ---


def _zipped(file: IO[bytes]) -> tuple[Any, Callable[[_Storage], int]]:
    with zipfile.ZipFile(file) as archive:
        records = {record.filename: record for record in archive.infolist()}
        main = next((name for name in records if name.rpartition("/")[2] == "data.pkl"), None)
        if main is None:
            raise ValueError("a zip file without torch's data.pkl")
        folder = main.removesuffix("data.pkl")
        if records[main].file_size > MAX_BYTES:
            raise ValueError(f"its pickle is larger than {MAX_BYTES // 2**20} MiB")
        order = records.get(f"{folder}byteorder")
        if order is not None and order.file_size < 100 and archive.read(order) != b"little":
            raise ValueError("not in little-endian byte order")
        with archive.open(main) as pickle:
            value = _interpret(pickle)

    def place(storage: _Storage) -> int:
        record = records[f"{folder}data/{storage.key}"]
        if record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1:
            raise ValueError("compressed or encrypted")
        if record.file_size < storage.numel * storage.dtype.itemsize:
            raise ValueError(f"{record.filename} is too short")
        file.seek(record.header_offset)
        header = file.read(_LOCAL_HEADER)
        after = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        return record.header_offset + _LOCAL_HEADER + after

    return value, place


def _in_sequence(file: IO[bytes]) -> tuple[Any, Callable[[_Storage], int]]:
    """Before torch 1.6: five pickles, then every storage's number of values and bytes."""
    if _interpret(file) != _MAGIC:
        raise ValueError("not written by torch.save")
    _interpret(file)  # protocol
    about = _interpret(file)
    if not (isinstance(about, dict) and about.get("little_endian") is True):
        raise ValueError("not in little-endian byte order")
    storages: dict[str, _Storage] = {}
    value = _interpret(file, storages)
    places: dict[str, int] = {}
    for key in _interpret(file):
        storage = storages[key]
        if int.from_bytes(file.read(8), "little") != storage.numel:
            raise ValueError("corrupt storages")
        places[key] = file.tell()
        file.seek(storage.numel * storage.dtype.itemsize, 1)
    return value, lambda storage: places[storage.key]


def _placed(value: Any, place: Callable[[_Storage], int]) -> Any:
    """Say where tensors are: those in dicts, and in dicts in them."""
    done: dict[int, Any] = {}  # by identity: a dict may be in many places, and in itself

    def visit(value: Any) -> Any:
        if isinstance(value, _Tensor):
            return _checked(value, place)
        if not isinstance(value, dict):
            return value
        if id(value) not in done:
            made: dict[Any, Any] = {}
            done[id(value)] = made
            made.update((key, visit(inner)) for key, inner in value.items())
        return done[id(value)]

    return visit(value)


def _checked(tensor: _Tensor, place: Callable[[_Storage], int]) -> Placed:
    """Raises ValueError if a tensor has more values than its storage."""
    storage, shape, stride = tensor.storage, tensor.shape, tensor.stride
    last = tensor.start + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if 0 in shape:
        return Placed(storage.dtype, shape, stride, 0, 0)
    if last >= storage.numel or prod(shape) > storage.numel:
        raise ValueError("a tensor is larger than its storage")
    offset = place(storage) + tensor.start * storage.dtype.itemsize
    return Placed(storage.dtype, shape, stride, offset, storage.numel - tensor.start)


# --- the operations of a pickle ---


def _operations(file: IO[bytes]) -> Iterator[tuple[str, Any]]:
    for number, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if number >= MAX_OPERATIONS:
            raise ValueError(f"more than {MAX_OPERATIONS:,} operations")
        yield operation.name, argument


def _interpret(file: IO[bytes], storages: dict[str, _Storage] | None = None) -> Any:
    """The value of one pickle; the file is then after it."""
    machine = _Machine({} if storages is None else storages)
    for name, argument in _operations(file):
        if name == "STOP":
            return machine.stack.pop()
        machine.step(name, argument)
    raise ValueError("ends within a pickle")


class _Machine:
    def __init__(self, storages: dict[str, _Storage]) -> None:
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []  # the stacks below marks
        self.memo: dict[int, Any] = {}
        self.storages = storages

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _PLAIN:
            stack.append(argument)
        elif name in _PUT:
            self.memo[argument] = stack[-1]
        elif name in _GET:
            stack.append(self.memo[argument])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        else:
            getattr(self, f"op_{name.lower()}")(argument)

    def _pop(self, n: int) -> list[Any]:
        if len(self.stack) < n:
            raise IndexError("an empty stack")
        values = self.stack[len(self.stack) - n :]
        del self.stack[len(self.stack) - n :]
        return values

    def _since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.marked.pop()
        return values

    def op_proto(self, argument: Any) -> None:
        pass

    op_frame = op_proto

    def op_mark(self, argument: Any) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def op_pop(self, argument: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._since_mark()

    def op_pop_mark(self, argument: Any) -> None:
        self._since_mark()

    def op_dup(self, argument: Any) -> None:
        self.stack.append(self.stack[-1])

    def op_memoize(self, argument: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def op_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(_Name(module, name))

    def op_stack_global(self, argument: Any) -> None:
        module, name = self._pop(2)
        self.stack.append(_Name(str(module), str(name)) if _texts(module, name) else Opaque())

    def op_empty_list(self, argument: Any) -> None:
        self.stack.append([])

    def op_empty_dict(self, argument: Any) -> None:
        self.stack.append({})

    def op_empty_tuple(self, argument: Any) -> None:
        self.stack.append(())

    def op_list(self, argument: Any) -> None:
        values = self._since_mark()
        self.stack.append(values)

    def op_tuple(self, argument: Any) -> None:
        values = self._since_mark()
        self.stack.append(tuple(values))

    def op_tuple1(self, argument: Any) -> None:
        self.stack.append(tuple(self._pop(1)))

    def op_tuple2(self, argument: Any) -> None:
        self.stack.append(tuple(self._pop(2)))

    def op_tuple3(self, argument: Any) -> None:
        self.stack.append(tuple(self._pop(3)))

    def op_dict(self, argument: Any) -> None:
        values = self._since_mark()
        self.stack.append({})
        self._set_items(values)

    def op_append(self, argument: Any) -> None:
        self._extend(self._pop(1))

    def op_appends(self, argument: Any) -> None:
        self._extend(self._since_mark())

    def _extend(self, values: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)

    def op_setitem(self, argument: Any) -> None:
        self._set_items(self._pop(2))

    def op_setitems(self, argument: Any) -> None:
        self._set_items(self._since_mark())

    def _set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            for key, value in zip(values[::2], values[1::2], strict=True):
                if isinstance(key, str | int | float):  # others could take forever to hash
                    target[key] = value

    def op_reduce(self, argument: Any) -> None:
        function, arguments = self._pop(2)
        self.stack.append(self._called(function, arguments))

    def op_newobj(self, argument: Any) -> None:
        self._pop(2)
        self.stack.append(Opaque())

    def op_newobj_ex(self, argument: Any) -> None:
        self._pop(3)
        self.stack.append(Opaque())

    def op_inst(self, argument: Any) -> None:
        self._since_mark()
        self.stack.append(Opaque())

    op_obj = op_frozenset = op_inst

    def op_empty_set(self, argument: Any) -> None:
        self.stack.append(Opaque())

    def op_additems(self, argument: Any) -> None:
        self._since_mark()

    def op_build(self, argument: Any) -> None:
        self._pop(1)  # such as the _metadata of a state dict

    def _called(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            return Opaque()
        match function.module, function.name:
            case "collections", "OrderedDict":
                pairs = arguments[0] if arguments else []
                made: dict[Any, Any] = {}
                for key, value in pairs if isinstance(pairs, list) else []:
                    if isinstance(key, str | int | float):
                        made[key] = value
                return made
            case "torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2":
                storage, start, shape, stride = arguments[:4]
                whole = isinstance(storage, _Storage) and len(shape) == len(stride) <= MAX_DIMS
                if not (whole and _sizes(start, *shape, *stride)):
                    raise ValueError("a broken tensor")
                return _Tensor(storage, start, shape, stride)
            case "torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state":
                return arguments[0]
        return Opaque()

    def op_binpersid(self, argument: Any) -> None:
        self.stack.append(self._stored(*self._pop(1)))

    def _stored(self, value: Any) -> Any:
        if not isinstance(value, tuple) or len(value) < 5 or value[0] != "storage":
            return Opaque()
        kind, key, _, numel = value[1:5]
        dtype = _DTYPES.get(kind.name) if isinstance(kind, _Name) else None
        if dtype is None or not _texts(key) or not _sizes(numel):
            return Opaque()
        return self.storages.setdefault(key, _Storage(key, dtype, numel))


def _texts(*values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _sizes(*values: Any) -> bool:
    return all(type(value) is int and 0 <= value < 2**62 for value in values)
