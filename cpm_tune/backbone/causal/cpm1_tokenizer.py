"""CPM-1's tokenizer: jieba words, spaces and newlines as signs of their own, then sentencepiece.

A text is cut by jieba, each space in it becomes ▂ and each newline ▃, the words are put together
with spaces between them, and sentencepiece cuts the whole. Decoding removes the spaces and puts
spaces and newlines back. Entries in angle brackets are never read from text: their ids are
inserted. Source: data_utils/tokenization_gpt2.py of TsinghuaAI/CPM-1-Generate (MIT).

transformers' CpmTokenizer gives other ids: it has no jieba, collapses spaces and adds tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from cpm_tune.backbone.tokens import TokenizerDefaults
from cpm_tune.common.segmenter import make_segmenter
from cpm_tune.errors import UserError

FILES = ("chinese_vocab.model", "spiece.model", "tokenizer.model", "vocab.model")
MAX_BYTES = 16 * 2**20  # CPM-1's file has 0.7 MB
_SPACE, _NEWLINE = "\u2582", "\u2583"
_DUMMY = "\u2581"  # sentencepiece's own sign of a space
# Ids that CPM-1 was trained with.
PUBLISHED = {
    "<unk>": 0,
    "<s>": 1,
    "</s>": 2,
    _NEWLINE: 3,
    "<sep>": 4,
    "<pad>": 5,
    "<mask>": 6,
    "<eod>": 7,
    _SPACE: 10,
}


class CPM1Tokenizer(TokenizerDefaults):
    """Text to ids and back. CPM-1 has no token that begins a text; <eod> ends one.

    `entries`: what each id is written as. `start`: the ids that begin a context.
    """

    start: tuple[int, ...] = ()

    def __init__(self, model: bytes) -> None:
        """Raises ValueError for bytes that are not a sentencepiece model with CPM-1's signs."""
        import sentencepiece

        if not model:
            raise ValueError("an empty file")
        try:
            self._model: Any = sentencepiece.SentencePieceProcessor(model_proto=model)
            pieces = [self._model.id_to_piece(index) for index in range(len(self._model))]
        except (RuntimeError, ValueError, UnicodeDecodeError) as error:
            raise ValueError(f"not a sentencepiece model ({_first_line(error)})") from error
        for entry, index in PUBLISHED.items():
            if index >= len(pieces) or pieces[index] != entry:
                there = repr(pieces[index][:40]) if index < len(pieces) else "nothing"
                raise ValueError(f"its entry {index} is {there}, CPM-1's is {entry}")
        self.unk, self.sep, self.pad = PUBLISHED["<unk>"], PUBLISHED["<sep>"], PUBLISHED["<pad>"]
        self.mask, self.eos = PUBLISHED["<mask>"], PUBLISHED["<eod>"]
        self.bos = self.eos  # in configs, which need one
        self.newline = PUBLISHED[_NEWLINE]
        self.never_written = tuple(
            index
            for entry, index in PUBLISHED.items()
            if index != self.eos and entry not in (_SPACE, _NEWLINE)
        )
        self.entries = {index: _text(piece) for index, piece in enumerate(pieces)}
        silent = {i: "" for i in range(len(pieces)) if self._model.is_control(i)}
        unknown = {i: "\u2047" for i in range(len(pieces)) if self._model.is_unknown(i)}
        self._decoded = {**self.entries, **silent, **unknown, self.eos: "<eod>"}
        self._sha256 = hashlib.sha256(b"cpm-1\0" + model).hexdigest()

    @classmethod
    def from_file(cls, path: Path) -> CPM1Tokenizer:
        """Read a sentencepiece model; raise UserError naming it for what is wrong."""
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES // 2**20} MiB")
            return cls(path.read_bytes())
        except OSError as error:
            raise UserError(
                f"{path}: no vocabulary can be read there ({error.strerror}); expected CPM-1's "
                "sentencepiece model."
            ) from error
        except ValueError as error:
            raise UserError(f"{path}: not CPM-1's vocabulary: {error}.") from error

    @property
    def sha256(self) -> str:
        return self._sha256

    @cached_property
    def _jieba(self) -> Any:
        return make_segmenter()

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without any special entry around it."""
        ids: list[int] = self._model.encode(written(self._jieba.cut(text)))
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids: special entries are nothing, but for <eod>; <unk> is ⁇.

        Raises KeyError for an id outside the vocabulary.
        """
        return "".join(self._decoded[index] for index in ids)

    def pieces(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids in pieces, each as soon as it is known."""
        for index in ids:
            yield self._decoded[index]

    def unknown(self, text: str) -> list[str]:
        """The characters that `encode` makes <unk> of, in order."""
        if self.unk not in self.encode(text):
            return []
        return [character for character in text if self.unk in self.encode(character)]


def written(words: Iterable[str]) -> str:
    """Words of a text as sentencepiece gets them: spaces between them, and signs for the text's own
    spaces and newlines."""
    return " ".join(word.replace(" ", _SPACE).replace("\n", _NEWLINE) for word in words)


def find_model(folder: Path) -> Path | None:
    """The sentencepiece model in a CPM-1 folder, under any of its usual names."""
    return next((file for name in FILES if (file := folder / name).is_file()), None)


def _text(piece: str) -> str:
    """What a piece is in a decoded text: without spaces, which only separate words."""
    words = piece.replace(_DUMMY, "").replace(" ", "")
    return words.replace(_SPACE, " ").replace(_NEWLINE, "\n")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
