"""T5's and mT5's tokenizer: sentencepiece, by the rules of the folder's own model.

The ids of a text are sentencepiece's: most models read a line break as a space, and several spaces
as one, as in T5's and mT5's pre-training. What begins a sequence gets sentencepiece's space before
its first word, if the model has one; an answer gets none, as a span in the middle of a Chinese text
has none. Sentinels and special entries written in a text are text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from cpm_tune.backbone.tokens import TokenizerDefaults
from cpm_tune.errors import UserError

FILES = ("spiece.model", "tokenizer.model", "sentencepiece.model")
MAX_BYTES = 64 * 2**20  # mT5's file has 4.3 MB
_SPACE = "\u2581"  # sentencepiece's
_NO_SPACE_BEFORE = b"\x1a\x02\x18\x00"  # protobuf: normalizer_spec { add_dummy_prefix: false }
_SPECIAL = re.compile(r"<(?=[^<>]{1,40}>)")
_SENTINEL = "<extra_id_{}>"


class T5Tokenizer(TokenizerDefaults):
    """Text to ids and back. `sentinels`: <extra_id_0>, <extra_id_1>, ...; entries of the model, or
    `extra_ids` ones after its last, the first with the highest id."""

    def __init__(self, model: bytes, pad: int, eos: int, columns: int, extra_ids: int) -> None:
        """Raises ValueError for bytes that are not a sentencepiece model, or do not fit."""
        import sentencepiece

        if not model:
            raise ValueError("an empty file")
        try:
            self._opening: Any = sentencepiece.SentencePieceProcessor(model_proto=model)
            self._model: Any = sentencepiece.SentencePieceProcessor(
                model_proto=model + _NO_SPACE_BEFORE
            )
            pieces = [self._model.id_to_piece(index) for index in range(len(self._model))]
        except (RuntimeError, ValueError, UnicodeDecodeError) as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise ValueError(f"not a sentencepiece model ({line})") from error
        if len(pieces) > columns:
            raise ValueError(f"it has {len(pieces)} entries, and the model {columns} columns")
        ids = {piece: index for index, piece in enumerate(pieces)}
        if _SENTINEL.format(0) not in ids:
            free = min(extra_ids, columns - len(pieces))
            ids |= {_SENTINEL.format(n): len(pieces) + free - 1 - n for n in range(free)}
        n = 0
        sentinels = list[int]()
        while (name := _SENTINEL.format(n)) in ids:
            sentinels.append(ids[name])
            n += 1
        if not sentinels:
            raise ValueError("it has no <extra_id_0>, and the model no free columns for one")
        self.sentinels = tuple(sentinels)
        self.pad, self.eos, self.unk = pad, eos, self._model.unk_id()
        if max(pad, eos) >= len(pieces) or len(ids) > columns:
            raise ValueError(
                f"it has {len(pieces)} entries; with pad {pad}, eos {eos} and sentinels they do "
                f"not fit the model's {columns} columns"
            )
        self.entries: Mapping[int, str] = {
            index: piece if index in sentinels else piece.replace(_SPACE, " ")
            for piece, index in ids.items()
        }
        silent = {i for i in range(len(pieces)) if self._model.is_control(i)}
        silent |= {pad, self.unk, *sentinels, *range(len(self.entries), columns)}
        self.never_written = tuple(sorted(silent - {eos}))
        self._silent = silent | {eos}
        about = f"t5\0{pad}\0{eos}\0{sentinels}\0".encode()
        self._sha256 = hashlib.sha256(about + model).hexdigest()

    @property
    def sha256(self) -> str:
        return self._sha256

    @cached_property
    def newline(self) -> int | None:  # type: ignore[override]
        ids = self.encode("\n")
        return ids[0] if len(ids) == 1 and ids[0] != self.unk else None

    def _ids(self, model: Any, text: str) -> list[int]:
        """Entries in angle brackets are cut after the first bracket, so that none is found."""
        first, *others = _parts(text)
        ids: list[int] = model.encode(first)
        for part in others:
            ids += self._model.encode(part)
        return ids

    def encode(self, text: str) -> list[int]:
        return self._ids(self._model, text)

    def opening(self, text: str) -> list[int]:
        return self._ids(self._opening, text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, without special entries."""
        text: str = self._model.decode([i for i in ids if i not in self._silent])
        return text

    def pieces(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids in pieces, each when it is known: a character can be several ids."""
        given, done = list[int](), ""
        for index in ids:
            given.append(index)
            text = self.decode(given)
            if not text.endswith("\ufffd") and text.startswith(done):
                yield text[len(done) :]
                done = text

    def unknown(self, text: str) -> list[str]:
        if self.unk not in self.encode(text):
            return []
        return [character for character in text if self.unk in self.encode(character)]


def _parts(text: str) -> list[str]:
    """A text, cut after each bracket that opens something like a special entry."""
    ends = [match.end() for match in _SPECIAL.finditer(text)]
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]


def find_model(folder: Path) -> Path | None:
    """The sentencepiece model of a folder, under any of its usual names."""
    return next((file for name in FILES if (file := folder / name).is_file()), None)


def read_tokenizer(
    file: Path, *, pad: int, eos: int, columns: int, extra_ids: int = 100
) -> T5Tokenizer:
    """Read a sentencepiece model; raise UserError naming it for what is wrong."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES // 2**20} MiB")
        return T5Tokenizer(file.read_bytes(), pad, eos, columns, extra_ids)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise UserError(f"{file}: not this model's vocabulary: {error}.") from error
