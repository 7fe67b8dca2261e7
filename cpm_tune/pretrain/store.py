"""A prepared corpus on disk: token ids and document offsets as .npy files, and its description."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cpm_tune.errors import UserError
from cpm_tune.paths import read_json

FORMAT = "cpm-tune corpus"
VERSION = 1
DESCRIPTION, VOCABULARY = "corpus.json", "vocab.txt"
SPLITS = ("train", "heldout")


class GrowingArray:
    """A one-dimensional .npy file that is appended to; the header is set right when it closes."""

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self.dtype, self.length, self.sha256 = np.dtype(dtype), 0, hashlib.sha256()
        self._file = path.open("wb")
        self._header = self._write_header()

    def _write_header(self) -> int:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": self.dtype.str, "fortran_order": False, "shape": (self.length,)}
        )
        self._file.write(header.getvalue())
        return len(header.getvalue())

    def append(self, values: Sequence[int] | NDArray[Any]) -> None:
        """Write values behind the others."""
        array = np.asarray(values, dtype=self.dtype)
        self._file.write(array.tobytes())
        self.sha256.update(array.tobytes())
        self.length += len(array)

    def close(self) -> None:
        """Finish the file."""
        with self._file:
            self._file.seek(0)
            if self._write_header() != self._header:
                raise RuntimeError("the .npy header changed its size")


class SplitWriter:
    """Writes one split of one source: NAME.SPLIT.tokens.npy and NAME.SPLIT.offsets.npy."""

    def __init__(self, folder: Path, source: str, split: str, dtype: DTypeLike) -> None:
        self.tokens = GrowingArray(folder / f"{source}.{split}.tokens.npy", dtype)
        self.offsets = GrowingArray(folder / f"{source}.{split}.offsets.npy", np.int64)
        self.offsets.append([0])

    def add(self, ids: Sequence[int]) -> None:
        """Append a document."""
        self.tokens.append(ids)
        self.offsets.append([self.tokens.length])

    @property
    def documents(self) -> int:
        """Documents so far."""
        return self.offsets.length - 1

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.tokens.close()
        finally:
            self.offsets.close()


@dataclass(frozen=True)
class Split:
    """Memory-mapped ids of a split; document i is tokens[offsets[i]:offsets[i + 1]]."""

    tokens: NDArray[Any]
    offsets: NDArray[np.int64]

    def document(self, number: int) -> NDArray[Any]:
        """The ids of a document."""
        return self.tokens[self.offsets[number] : self.offsets[number + 1]]

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class Corpus:
    """A prepared folder. `about` is its corpus.json."""

    path: Path
    about: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> Corpus:
        """Open a prepared folder; raise UserError if it is not one."""
        file = path / DESCRIPTION
        try:
            about = read_json(file)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path}: not a prepared corpus ({error}); make one with `pretrain prepare`."
            ) from error
        known = isinstance(about, dict) and about.keys() >= {
            "sources",
            "vocab_size",
            "vocab_sha256",
        }
        if not known or (about.get("format"), about.get("version")) != (FORMAT, VERSION):
            raise UserError(f"{file}: not a corpus of this version; run `pretrain prepare` again.")
        return cls(path, about)

    @property
    def sources(self) -> list[str]:
        """Names of the sources, in order."""
        return list(self.about["sources"])

    @property
    def vocabulary(self) -> Path:
        """The vocabulary that the ids belong to."""
        return self.path / VOCABULARY

    def weights(self) -> dict[str, float]:
        """The sources' weights as they were prepared."""
        return {name: entry["weight"] for name, entry in self.about["sources"].items()}

    def split(self, source: str, split: str) -> Split:
        """Map one split of a source into memory; UserError if its files are not those described."""
        stem = f"{self.path / source}.{split}"
        offsets = self._load(f"{stem}.offsets.npy")
        described = self.about["sources"][source][split]
        tokens = np.zeros(0, np.uint16)
        if described["tokens"]:  # an empty file has no map
            tokens = self._load(f"{stem}.tokens.npy", mmap_mode="r")
        if (len(offsets) - 1, len(tokens), offsets[-1]) != (
            described["documents"],
            described["tokens"],
            described["tokens"],
        ):
            raise UserError(f"{stem}.*.npy: not what {DESCRIPTION} describes; prepare again.")
        return Split(tokens, offsets)

    def _load(self, file: str, mmap_mode: Literal["r"] | None = None) -> NDArray[Any]:
        try:
            array: NDArray[Any] = np.load(file, mmap_mode=mmap_mode, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{file}: not readable ({error}); prepare again.") from error
        return array

    def unigram(self, source: str) -> NDArray[np.int64]:
        """How often each token is in the source's training split: (vocab_size,)."""
        return self._load(f"{self.path / source}.unigram.npy")

    def sha256(self) -> str:
        """Fingerprint of the description, which holds counts and hashes of all that matters."""
        return hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()
