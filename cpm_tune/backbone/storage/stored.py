"""Tensors in checkpoint files: found by name, read whole or in parts.

A part is copied from the file into the caller's memory: only what was asked for is resident.
Pickled files are only ever read with torch's weights_only loader.
"""

from __future__ import annotations

import ctypes
import json
import math
import mmap
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from cpm_tune.common.saved import SAFETENSORS_DTYPES, as_bytes, check_extent
from cpm_tune.errors import UserError

_DTYPES = {name: dtype for dtype, name in SAFETENSORS_DTYPES.items()}


@dataclass(frozen=True)
class Stored:
    """A floating-point tensor in a file. `offset`: where its bytes begin, in a safetensors file;
    `loaded`: the tensor itself, contiguous, of a pickled one; `mapped`: its memory is the file."""

    path: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int = 0
    loaded: Tensor | None = field(default=None, repr=False)
    mapped: bool = False

    def whole(self) -> Tensor:
        """The tensor, its bytes mapped from the file and not to be changed."""
        if self.loaded is not None:
            return self.loaded
        from safetensors import safe_open

        with safe_open(self.path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(self.name)
        return tensor

    def read_into(self, out: Tensor, start: int) -> None:
        """Fill a contiguous CPU tensor of this dtype with the values from flat index `start` on."""
        if self.loaded is not None:
            part = self.loaded.view(-1)[start : start + out.numel()]
            out.view(-1).copy_(part)
            if self.mapped:
                _forget(part)
            return
        buffer, done = as_bytes(out), 0
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset + start * self.dtype.itemsize)
            while done < len(buffer):
                got = file.readinto(buffer[done:])
                if not got:
                    raise UserError(f"{self.path}: ends within tensor {self.name}; get it again.")
                done += got


def stored_tensors(files: Iterable[Path]) -> Iterator[Stored]:
    """Yield the tensors of weight files; raise UserError for anything else and for broken files."""
    for path in files:
        try:
            check_extent(path)
        except (OSError, ValueError) as error:
            raise _broken(path, error) from error
        if path.suffix == ".safetensors":
            yield from _safetensors(path)
            continue
        state, mapped = _load_pickled(path)
        if not isinstance(state, Mapping):
            raise UserError(f"{path}: expected a state dict, found {type(state).__name__}.")
        for name, value in state.items():
            if not isinstance(value, Tensor) or value.dtype not in SAFETENSORS_DTYPES:
                kind = str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
                raise _not_floating(path, str(name), kind)
            loaded = value.detach().contiguous()
            yield Stored(
                path,
                str(name),
                value.dtype,
                tuple(value.shape),
                loaded=loaded,
                mapped=mapped and loaded.data_ptr() == value.data_ptr(),
            )


def _safetensors(path: Path) -> Iterator[Stored]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:  # checks header and size
            names = list(file.keys())
        with path.open("rb") as raw:
            size = int.from_bytes(raw.read(8), "little")
            header = json.loads(raw.read(size))
    except (SafetensorError, OSError) as error:
        raise _broken(path, error) from error
    for name in names:
        about = header[name]
        if about["dtype"] not in _DTYPES:
            with safe_open(path, framework="pt") as file:
                raise _not_floating(path, name, str(file.get_tensor(name).dtype))
        yield Stored(
            path,
            name,
            _DTYPES[about["dtype"]],
            tuple(about["shape"]),
            offset=8 + size + about["data_offsets"][0],
        )


def _broken(path: Path, error: Exception) -> UserError:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    reason = line.split(". ")[0][:160]
    return UserError(f"{path}: not a readable checkpoint ({reason}); get it again.")


def _not_floating(path: Path, name: str, kind: str) -> UserError:
    return UserError(
        f"{path}: '{name}' is {kind}, expected a floating-point tensor; give a state dict."
    )


def _load_pickled(path: Path) -> tuple[object, bool]:
    """torch.load of tensors only, and whether they are mapped from the file.

    A broken file can make it raise anything.
    """
    import pickle

    try:
        with warnings.catch_warnings():  # of protocols; what the loader does not know, it refuses
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True), True
            except RuntimeError as error:
                if "mmap can only be used" not in str(error):  # written by torch before 1.6
                    raise
                return torch.load(path, map_location="cpu", weights_only=True), False
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: not a readable checkpoint: corrupt, or a pickle of more than "
            "tensors (refused)."
        ) from error
    except Exception as error:
        raise _broken(path, error) from error


def _forget(part: Tensor) -> None:
    """Give back the pages of a mapped file that reading a part has made resident (Linux)."""
    if sys.platform != "linux":
        return
    page = mmap.PAGESIZE
    begin = math.ceil(part.data_ptr() / page) * page  # whole pages only: others have neighbours
    end = (part.data_ptr() + part.nbytes) // page * page
    if end > begin:
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)
