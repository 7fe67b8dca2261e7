"""Checkpoint files written a part at a time: safetensors, in shards if wanted, and torch's .pt.

A file's tensors are known by name, shape and dtype before their first value is read.
"""

from __future__ import annotations

import errno
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from cpm_tune.common.saved import as_bytes, safetensors_head

_ALIGNMENT = 64
_HEADER = 30 + 20  # of a zip record, and its sizes in 64 bits


@dataclass(frozen=True)
class Target:
    """A tensor to write. `chunks` yields its values in order, in flat parts of this dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    chunks: Callable[[], Iterator[Tensor]]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_safetensors(path: Path, targets: Sequence[Target]) -> None:
    """Write one file; wider dtypes first, so that every tensor is aligned."""
    ordered = sorted(targets, key=lambda target: -target.dtype.itemsize)
    head = safetensors_head(((t.name, t.dtype, t.shape) for t in ordered), {"format": "pt"})
    with path.open("wb") as file:
        file.write(head)
        for target in ordered:
            _write(file, target)


def write_shards(folder: Path, targets: Sequence[Target], most: int) -> None:
    """Write model.safetensors, or several of at most so many bytes with transformers' index.

    A tensor larger than `most` gets its own file.
    """
    shards: list[list[Target]] = [[]]
    for target in targets:
        if shards[-1] and sum(t.nbytes for t in shards[-1]) + target.nbytes > most:
            shards.append([])
        shards[-1].append(target)
    if len(shards) == 1:
        write_safetensors(folder / "model.safetensors", targets)
        return
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_safetensors(folder / file, shard)
        where |= {target.name: file for target in shard}
    total = sum(target.nbytes for target in targets)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def write_pt(
    path: Path,
    targets: Sequence[Target],
    around: Callable[[dict[str, Tensor]], dict[str, Any]] = dict,
) -> None:
    """Write what torch.save writes of a dict of these tensors: a zip file of stored records.

    around: makes the dict that is written of the dict of tensors, which stay in this order. torch
    makes a sparse file of it without values (memory for them is reserved, never touched); its
    records are copied, and the values are written in their places.
    """
    state = around({t.name: torch.empty(t.shape, dtype=t.dtype) for t in targets})
    sparse = path.with_name("archive.pt")  # whose stem torch puts before the records' names
    try:
        with torch.serialization.skip_data():
            torch.save(state, sparse)
    except RuntimeError as error:  # torch does not say what the system's error was
        raise OSError(errno.EIO, "torch failed to write a file") from error
    del state
    with zipfile.ZipFile(sparse) as plan, zipfile.ZipFile(path, "w") as file:
        for record in plan.infolist():
            number = record.filename.removeprefix("archive/data/")
            if not number.isdecimal():
                fixed = zipfile.ZipInfo(record.filename)  # the same bytes at any time
                file.writestr(fixed, plan.read(record))
                continue
            with file.open(_aligned(record.filename, file.start_dir), "w", force_zip64=True) as out:
                _write(out, targets[int(number)])
    sparse.unlink()


def _aligned(name: str, place: int) -> zipfile.ZipInfo:
    """A record whose header begins at `place` and whose bytes are aligned as torch's are."""
    record = zipfile.ZipInfo(name)
    begins = place + _HEADER + len(name) + 4  # 4 for the padding's header
    padding = -begins % _ALIGNMENT
    record.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    return record


def _write(file: IO[bytes], target: Target) -> None:
    for values in target.chunks():
        file.write(as_bytes(values))
