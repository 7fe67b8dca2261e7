"""Interprets the operations of a pickle for what plain values and torch's tensors need.

A pickle is a program that can call anything. Whatever else it builds (random states, arguments,
code) becomes an `Opaque` here, and nothing is imported or called.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import torch

MAX_OPERATIONS = 500_000  # 15,000 tensors have as many; more takes seconds
MAX_DIMS = 64
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
class Storage:
    """Values of one dtype in a file, by the key that a pickle has for them."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True)
class StoredTensor:
    """A part of a storage, from a value on."""

    storage: Storage
    start: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _operations(file: IO[bytes]) -> Iterator[tuple[str, Any]]:
    for number, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if number >= MAX_OPERATIONS:
            raise ValueError(f"more than {MAX_OPERATIONS:,} operations")
        yield operation.name, argument


def interpret(file: IO[bytes], storages: dict[str, Storage] | None = None) -> Any:
    """The value of one pickle; the file is then after it."""
    machine = _Machine({} if storages is None else storages)
    for name, argument in _operations(file):
        if name == "STOP":
            return machine.stack.pop()
        machine.step(name, argument)
    raise ValueError("ends within a pickle")


class _Machine:
    def __init__(self, storages: dict[str, Storage]) -> None:
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
                whole = isinstance(storage, Storage) and len(shape) == len(stride) <= MAX_DIMS
                if not (whole and _sizes(start, *shape, *stride)):
                    raise ValueError("a broken tensor")
                return StoredTensor(storage, start, shape, stride)
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
        return self.storages.setdefault(key, Storage(key, dtype, numel))


def _texts(*values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _sizes(*values: Any) -> bool:
    return all(type(value) is int and 0 <= value < 2**62 for value in values)
