"""A prepared corpus on disk: token ids and document offsets as .npy files, and its description."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pydantic import BaseModel, Field, ValidationError

from cpm_tune.backbone.families import pretrainings
from cpm_tune.backbone.pretraining import Pretraining
from cpm_tune.backbone.tokens import Tokenizer
from cpm_tune.common.faults import faults
from cpm_tune.common.paths import file_sha256
from cpm_tune.common.reading import read_json
from cpm_tune.errors import UserError
from cpm_tune.pretrain.sources import Weight

FORMAT = "cpm-tune corpus"
VERSION = 1
DESCRIPTION = "corpus.json"
FIRST_KIND = "cpm-ant"  # of descriptions without a kind, which are older
SPLITS = ("train", "heldout")
Count = Annotated[int, Field(ge=0)]


class SplitDescription(BaseModel, strict=True):
    """One split of a source in a corpus's description."""

    documents: Count
    tokens: Count


class SourceDescription(BaseModel, strict=True):
    """A source in a corpus's description."""

    weight: Weight
    train: SplitDescription
    heldout: SplitDescription


class Description(BaseModel, strict=True):
    """The part of corpus.json that is read; the rest is for people."""

    vocab_size: Count
    vocab_sha256: str
    vocab_kind: str = FIRST_KIND
    sources: Annotated[dict[str, SourceDescription], Field(min_length=1)]


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
        """Write values after the others."""
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

    def close(self) -> None:
        """Finish both files."""
        try:
            self.tokens.close()
        finally:
            self.offsets.close()


@dataclass(frozen=True)
class CorpusSplit:
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
        """Open a prepared folder; raise UserError if it is not one, or has another vocabulary."""
        file = path / DESCRIPTION
        try:
            about = read_json(file)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise UserError(
                f"{path}: not a prepared corpus ({DESCRIPTION}: {why}); make one with `pretrain "
                "prepare`."
            ) from error
        version = {"format": FORMAT, "version": VERSION}
        if not (isinstance(about, dict) and version.items() <= about.items()):
            raise UserError(f"{file}: not a corpus of this version; run `pretrain prepare` again.")
        try:
            Description.model_validate(about)
        except ValidationError as error:
            raise UserError(
                f"{file}: damaged: {faults(error)[0]}; run `pretrain prepare` again."
            ) from error
        if (kind := about.get("vocab_kind", FIRST_KIND)) not in pretrainings():
            raise UserError(
                f"{file}: its vocabulary is of the kind '{kind}', which no installed family "
                "pre-trains; install the one it was prepared with."
            )
        corpus = cls(path, about)
        try:
            sha256 = file_sha256(corpus.vocabulary)
        except OSError as error:
            raise UserError(
                f"{corpus.vocabulary}: not readable ({error.strerror}); prepare again."
            ) from error
        if sha256 != about["vocab_sha256"]:
            raise UserError(
                f"{corpus.vocabulary}: not the vocabulary that {path} was prepared with. Restore "
                "that one, or run `pretrain prepare` again."
            )
        if (size := len(corpus.tokenizer())) != about["vocab_size"]:
            raise UserError(
                f"{file}: damaged: vocab_size is {about['vocab_size']}, but "
                f"{corpus.vocabulary.name} has {size} entries; run `pretrain prepare` again."
            )
        return corpus

    def check_vocabulary(self, vocabulary: Path) -> None:
        """Raise UserError unless a backbone's vocabulary is the one that the ids belong to."""
        if file_sha256(vocabulary) != self.about["vocab_sha256"]:
            raise UserError(
                f"{vocabulary}: not the vocabulary that {self.path} was prepared with; run "
                f"`pretrain prepare --vocab {vocabulary}`."
            )

    @property
    def vocabulary(self) -> Path:
        """The vocabulary that the ids belong to."""
        return self.path / self.kind.vocabulary

    @property
    def kind(self) -> Pretraining:
        """How a model with this vocabulary is pre-trained."""
        return pretrainings()[self.about.get("vocab_kind", FIRST_KIND)]

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the ids belong to."""
        return self.kind.tokenizer(self.vocabulary)

    def texts(self) -> Iterator[str]:
        """The training documents of every source, decoded."""
        tokenizer = self.tokenizer()
        for source in self.weights():
            split = self.split(source, "train")
            for number in range(len(split)):
                yield tokenizer.decode(split.document(number).tolist())

    def weights(self) -> dict[str, float]:
        """The sources' weights as they were prepared."""
        return {name: entry["weight"] for name, entry in self.about["sources"].items()}

    def split(self, source: str, split: str) -> CorpusSplit:
        """Map one split of a source into memory; UserError if its files are not those described.

        All tokens are read once for it.
        """
        stem = f"{self.path / source}.{split}"
        offsets = self._load(f"{stem}.offsets.npy")
        described = self.about["sources"][source][split]
        tokens = np.zeros(0, np.uint16)
        if described["tokens"]:  # an empty file has no map
            tokens = self._load(f"{stem}.tokens.npy", mmap_mode="r")
        whole = (
            offsets.dtype == np.int64
            and offsets.shape == (described["documents"] + 1,)
            and tokens.dtype in (np.uint16, np.uint32)
            and tokens.shape == (described["tokens"],)
            and (offsets[0], offsets[-1]) == (0, len(tokens))
            and bool((offsets[1:] >= offsets[:-1]).all())
        )
        if not whole:
            raise UserError(f"{stem}.*.npy: not what {DESCRIPTION} describes; prepare again.")
        if len(tokens) and (most := int(tokens.max())) >= self.about["vocab_size"]:
            raise UserError(
                f"{stem}.tokens.npy: token {most} is outside of the vocabulary, which has "
                f"{self.about['vocab_size']} entries; prepare again."
            )
        if hashlib.sha256(tokens.data).hexdigest() != described.get("sha256"):
            raise UserError(
                f"{stem}.tokens.npy: not the tokens that {DESCRIPTION} describes (another "
                "SHA-256); prepare again."
            )
        return CorpusSplit(tokens, offsets)

    def _load(self, file: str, mmap_mode: Literal["r"] | None = None) -> NDArray[Any]:
        try:
            array = np.load(file, mmap_mode=mmap_mode, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{file}: not readable ({error}); prepare again.") from error
        if not isinstance(array, np.ndarray):  # np.load opens archives of arrays, too
            raise UserError(f"{file}: an archive, expected one array; prepare again.")
        return array

    def unigram(self, source: str) -> NDArray[np.int64]:
        """How often each token is in the source's training split: (vocab_size,)."""
        file = f"{self.path / source}.unigram.npy"
        counts = self._load(file)
        total = self.about["sources"][source]["train"]["tokens"]
        whole = counts.dtype == np.int64 and counts.shape == (self.about["vocab_size"],)
        if not (whole and counts.min() >= 0 and counts.sum() == total):
            raise UserError(f"{file}: not what {DESCRIPTION} describes; prepare again.")
        return counts
