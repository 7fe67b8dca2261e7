"""What rounding takes from weights when their scaling changes in one dtype, kept for the way back.

A weight that is divided by sqrt(fan-in) and rounded cannot always be multiplied back to the same
bits (two neighbours may have become one). In a converted checkpoint `scaling.npz` has, for every
block of CHUNK values, the difference of the original's bits from what multiplying back gives: two
bits per value, since it is nearly always 0, +1 or -1, and a list of the others (small fp16 values
that became subnormal); only the list if that is shorter. Blocks without a difference are left out.
So a fan-in of 4096, whose square root is a power of two, costs next to nothing. Each block has the
CRC-32 of the converted values, so that it is never applied to weights that have changed since.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cpm_tune.common.saved import as_bytes
from cpm_tune.errors import UserError

FILE = "scaling.npz"
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_LISTED = 4 + 8  # bytes of a place in the block and the difference there
_CODES = np.array([0, 1, -1, 0], dtype=np.int64)  # the fourth: in the list


class RoundingResidual:
    """Reads the scaling.npz of one folder, if there is one, and writes another's, if needed."""

    def __init__(self, source: Path, target: Path) -> None:
        self.source, self.target = source / FILE, target / FILE
        self._file: zipfile.ZipFile | None = None
        self._known: set[str] = set()
        self._out: zipfile.ZipFile | None = None
        self._kept: set[str] = set()
        if self.source.is_file():
            try:
                self._file = zipfile.ZipFile(self.source)
                self._known = set(self._file.namelist())
            except (OSError, zipfile.BadZipFile) as error:
                raise self._unreadable(error) from error

    def close(self) -> None:
        """Close both files; the new one is then complete."""
        for file in (self._file, self._out):
            if file is not None:
                file.close()

    def restore(self, block: str, stored: Tensor, back: Tensor) -> Tensor:
        """The original of which `stored` was made; `back` is what scaling back gives."""
        name = f"{block}.npy"
        if self._file is None or name not in self._known:
            return back
        try:
            with self._file.open(name) as file:
                kept = np.lib.format.read_array(file, allow_pickle=False)
            checksum, listed = kept[:8].view("<u4")
            codes, rest = np.split(kept[8:], [len(kept) - 8 - _LISTED * int(listed)])
            difference = np.zeros(back.numel(), dtype=np.int64)
            if len(codes):
                difference = _CODES[_unpacked(codes, back.numel())]
            difference[rest[: 4 * listed].view("<u4")] = rest[4 * listed :].view("<i8")
        except (ValueError, IndexError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise self._unreadable(error) from error
        if checksum != zlib.crc32(as_bytes(stored)):
            raise UserError(
                f"{self.source}: belongs to other weights than those in its folder ({block}); "
                "remove it, and the conversion is exact except for rounding."
            )
        bits = back.view(_BITS[back.element_size()])
        bits += torch.from_numpy(difference).to(bits.dtype)
        return back

    def keep(self, block: str, original: Tensor, stored: Tensor, back: Tensor) -> None:
        """Write what `back`, made of `stored`, lacks of the original, if anything."""
        kind = _BITS[original.element_size()]
        if block in self._kept or torch.equal(original.view(kind), back.view(kind)):
            return
        self._kept.add(block)
        values = (original.view(kind).to(torch.int64) - back.view(kind)).numpy()
        where = np.flatnonzero(values)
        code = np.empty(0, np.uint8)
        if _LISTED * len(where) > len(values) // 4:
            code = np.select([values == 0, values == 1, values == -1], [0, 1, 2], 3).astype(
                np.uint8
            )
            where = np.flatnonzero(code == 3)
        head = np.array([zlib.crc32(as_bytes(stored)), len(where)], dtype="<u4")
        rest = (where.astype("<u4"), values[where].astype("<i8"))
        parts = [part.view(np.uint8) for part in (head, _packed(code), *rest)]
        self._out = self._out or zipfile.ZipFile(self.target, "w")
        with self._out.open(f"{block}.npy", "w") as file:
            np.lib.format.write_array(file, np.concatenate(parts), allow_pickle=False)

    def _unreadable(self, error: Exception) -> UserError:
        return UserError(
            f"{self.source}: not readable ({error}); remove it, and the conversion is exact except "
            "for rounding."
        )


def _packed(code: NDArray[np.uint8]) -> NDArray[np.uint8]:
    four = np.pad(code, (0, -len(code) % 4)).reshape(-1, 4)
    return np.bitwise_or.reduce(four << np.array([0, 2, 4, 6], dtype=np.uint8), axis=1)


def _unpacked(codes: NDArray[np.uint8], n: int) -> NDArray[np.intp]:
    four = np.stack([codes >> shift & 3 for shift in (0, 2, 4, 6)], axis=1)
    return four.reshape(-1)[:n].astype(np.intp)
