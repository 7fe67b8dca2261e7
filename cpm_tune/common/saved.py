"""Files of tensors, complete or absent: safetensors, and a training checkpoint of tensors and plain
values only."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from cpm_tune.common.writing import replacing
from cpm_tune.errors import UserError
from cpm_tune.version import NUMBERS

FINGERPRINT = "fingerprint"
_NUMBERS = "numbers"
# The names of dtypes in safetensors files, in the order in which the library writes tensors.
_NAMES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
SAFETENSORS_DTYPES = {dtype: name for dtype, name in _NAMES.items() if dtype.is_floating_point}


def write_tensors(
    path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a safetensors file, atomically.

    The bytes are those of the library's save_file, which leaves a nameless copy if it is killed,
    gives the file other permissions, and does not say what the system's error was.
    """
    order = list(_NAMES)
    names = sorted(state, key=lambda name: (order.index(state[name].dtype), name))
    with replacing(path) as part, part.open("wb") as file:
        file.write(
            safetensors_head(
                ((name, state[name].dtype, tuple(state[name].shape)) for name in names), metadata
            )
        )
        for name in names:
            file.write(as_bytes(state[name].detach().cpu().contiguous()))


def safetensors_head(
    tensors: Iterable[tuple[str, torch.dtype, tuple[int, ...]]],
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """What a safetensors file of these tensors (name, dtype, shape) begins with; their values
    follow in this order."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    place = 0
    for name, dtype, shape in tensors:
        end = place + math.prod(shape) * dtype.itemsize
        header[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [place, end],
        }
        place = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def as_bytes(values: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, not copied."""
    return values.view(-1).view(torch.uint8).numpy().data


class _Remembering:
    """A file for torch.save, which raises its own error for a failed write and hides the reason."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def write_pickled(path: Path, state: Mapping[str, Any]) -> None:
    """Write what torch.save writes, atomically. Raises the system's OSError, which torch hides."""
    with replacing(path) as part, part.open("wb") as file:
        remembering = _Remembering(file)
        try:
            torch.save(dict(state), remembering)  # type: ignore[arg-type]
        except RuntimeError as error:
            raise remembering.error or error from error


def write_state(path: Path, state: Mapping[str, Any], step: int, go_on: str) -> None:
    """Write a checkpoint in place of the last one, atomically.

    Raises UserError with the reason, where the last good checkpoint is, and how to resume
    (`go_on`: a command or option).
    """
    try:
        write_pickled(path, {**state, _NUMBERS: NUMBERS})
    except OSError as error:
        kept = f"the last good one is kept in {path}" if path.is_file() else "it would be the first"
        raise UserError(
            f"step {step}: the checkpoint could not be written to {path.parent} "
            f"({error.strerror}); {kept}. Make room and resume with {go_on}."
        ) from error


def read_state(
    path: Path, parts: Sequence[str], fingerprint: Mapping[str, str], otherwise: str
) -> dict[str, Any]:
    """Read a checkpoint that has `parts` and belongs to the run with this fingerprint.

    Raises FileNotFoundError if there is none, and UserError if it cannot be read (`otherwise` says
    what to do), belongs to another run, or was left by a version that computes other numbers.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        actual, _ = state[FINGERPRINT].get, [state[key] for key in parts]
    except FileNotFoundError:
        raise
    except Exception as error:  # a broken file can make torch.load raise anything
        line = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f"{path}: not a readable checkpoint ({line}); {otherwise}.") from error
    for key, value in fingerprint.items():
        if actual(key) != value:
            raise UserError(
                f"{path}: the checkpoint belongs to another {key} ({str(actual(key))[:12]}, now "
                f"{value[:12]}); resume with what it was started with, or use another --out."
            )
    numbers = state.get(_NUMBERS, 1)  # the first version did not store it
    if numbers != NUMBERS:
        raise UserError(
            f"{path}: the checkpoint was left by another version of cpm-tune, which computes other "
            f"results (numbers {numbers}, now {NUMBERS}); {otherwise}, or resume with that version."
        )
    return state
