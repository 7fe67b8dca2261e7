"""Tensors in checkpoint files: found by name, read whole or in parts.

A part is copied from the file into the caller's memory: only what was asked for is resident.
Pickled files are interpreted, never unpickled (`cpm_tune.backbone.storage.pickled`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import filterfalse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpm_tune.backbone.storage.pickled import Opaque, Placed, read_pickled
from cpm_tune.common.reading import parse_json
from cpm_tune.common.saved import SAFETENSORS_DTYPES, as_bytes
from cpm_tune.errors import UserError

MAX_HEADER = 16 * 2**20  # bytes of a safetensors header: 100,000 tensors have as many
_DTYPES = {name: dtype for dtype, name in SAFETENSORS_DTYPES.items()}


@dataclass(frozen=True)
class Stored:
    """A floating-point tensor in a file. `offset`: where its bytes begin; `loaded`: the tensor
    itself, contiguous, if the file has its values in another order."""

    path: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int = 0
    loaded: Tensor | None = field(default=None, repr=False)

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def whole(self) -> Tensor:
        """The tensor, its bytes mapped from the file and not to be changed."""
        if self.loaded is not None:
            return self.loaded
        if self.offset % self.dtype.itemsize or not self.numel:
            values = torch.empty(self.shape, dtype=self.dtype)
            self.read_into(values, 0)
            return values
        return _mapped(self.path, self.dtype, self.offset, self.numel).view(self.shape)

    def read_into(self, out: Tensor, start: int) -> None:
        """Fill a contiguous CPU tensor of this dtype with the values from flat index `start` on."""
        if self.loaded is not None:
            out.view(-1).copy_(self.loaded.view(-1)[start : start + out.numel()])
            return
        buffer, done = as_bytes(out), 0
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset + start * self.dtype.itemsize)
            while done < len(buffer):
                got = file.readinto(buffer[done:])
                if not got:
                    raise UserError(f"{self.path}: ends within tensor {self.name}; get it again.")
                done += got


def _mapped(path: Path, dtype: torch.dtype, offset: int, numel: int) -> Tensor:
    """Values mapped from a file: what is written to them stays in memory."""
    size = path.stat().st_size
    if offset + numel * dtype.itemsize > size:
        raise UserError(f"{path}: ends within a tensor; get it again.")
    mapping = torch.UntypedStorage.from_file(str(path), False, size)
    whole = torch.empty(0, dtype=torch.uint8).set_(mapping)  # type: ignore[arg-type]
    return whole[offset:][: numel * dtype.itemsize].view(dtype)


def stored_tensors(
    files: Iterable[Path], without: re.Pattern[str] | None = None
) -> Iterator[Stored]:
    """Yield the tensors of weight files, except those whose names `without` finds; raise UserError
    for anything else and for broken files."""
    for path in files:
        if path.suffix == ".safetensors":
            yield from _safetensors(path, without)
        else:
            state = state_of(path)
            if without is not None and isinstance(state, Mapping):
                state = {k: v for k, v in state.items() if not without.search(str(k))}
            yield from tensors_of(path, state)


def state_of(path: Path) -> Any:
    """What a file of torch's contains; raise UserError for a broken file, or one of anything but
    plain values and tensors."""
    try:
        return read_pickled(path)
    except OSError as error:
        raise broken(path, error) from error
    except ValueError as error:
        if _is_empty(path):
            raise broken(path, error) from error
        raise UserError(
            f"{path}: not a readable checkpoint: corrupt, or a pickle of more than tensors "
            f"(refused): {str(error)[:160]}; get it again."
        ) from error


def tensors_of(path: Path, state: Any) -> Iterator[Stored]:
    """Yield the tensors of a state dict; raise UserError if it is not one."""
    if not isinstance(state, Mapping):
        raise UserError(f"{path}: expected a state dict, found {_kind(state)}.")
    for name, value in state.items():
        if isinstance(value, Opaque):
            raise UserError(
                f"{path}: not a readable checkpoint: corrupt, or a pickle of more than tensors "
                f"(refused): '{name}' is none."
            )
        if not isinstance(value, Placed) or value.dtype not in SAFETENSORS_DTYPES:
            raise _not_floating(path, str(name), _kind(value))
        offset, loaded = value.offset, None
        if not value.contiguous and 0 not in value.shape:
            around = Stored(path, str(name), value.dtype, (value.available,), offset).whole()
            loaded = around.as_strided(value.shape, value.stride).contiguous()
        yield Stored(path, str(name), value.dtype, value.shape, offset, loaded)


def _kind(value: Any) -> str:
    if isinstance(value, Placed):
        return str(value.dtype) if value.dtype not in SAFETENSORS_DTYPES else "Tensor"
    return type(value).__name__


def _safetensors(path: Path, without: re.Pattern[str] | None) -> Iterator[Stored]:
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as raw:
            size = int.from_bytes(raw.read(8), "little")
            if size > MAX_HEADER:
                raise ValueError(f"a header of {size:,} bytes, at most {MAX_HEADER:,} are read")
            header = parse_json(raw.read(size))
        with safe_open(path, framework="pt") as file:  # checks header and size
            names = list(file.keys())
        for name in names if without is None else filterfalse(without.search, names):
            about = header[name]
            if about["dtype"] not in _DTYPES:
                raise _not_floating(path, name, _names_of_others(about["dtype"]))
            begins = 8 + size + about["data_offsets"][0]
            yield Stored(path, name, _DTYPES[about["dtype"]], tuple(about["shape"]), begins)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise broken(path, error) from error


def _is_empty(path: Path) -> bool:
    return path.is_file() and not path.stat().st_size


def broken(path: Path, error: Exception) -> UserError:
    """That a checkpoint cannot be read: the file is empty, or the first sentence of the reason."""
    if _is_empty(path):
        return UserError(f"{path}: not a readable checkpoint: the file is empty; get it again.")
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    reason = line.split(". ")[0][:160]
    return UserError(f"{path}: not a readable checkpoint ({reason}); get it again.")


def _names_of_others(name: str) -> str:
    others = {"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8"}
    return f"torch.{others.get(name, name.lower())}"


def _not_floating(path: Path, name: str, kind: str) -> UserError:
    return UserError(
        f"{path}: '{name}' is {kind}, expected a floating-point tensor; give a state dict."
    )
