"""Tokenizers that cut jieba's words greedily into the longest entries of a vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

from cpm_tune.backbone.tokens import TokenizerDefaults
from cpm_tune.common.segmenter import make_segmenter
from cpm_tune.errors import UserError

MAX_WORD = 200  # characters; a longer word is unknown as a whole


class LongestMatch(TokenizerDefaults):
    """Text to ids. `ids`: of entries, as they are in a text. `model`: whose vocabulary it is."""

    model: ClassVar[str]

    def __init__(self, ids: Mapping[str, int], unk: int) -> None:
        self.ids, self.unk = ids, unk
        self._longest = max(map(len, ids))
        self._begins = {entry[0] for entry in ids if len(entry) > 1}
        self._pieces = lru_cache(maxsize=200_000)(self._cut_word)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a vocabulary file; raise UserError naming it for what is wrong."""
        try:
            return cls.from_lines(path.read_text(encoding="utf-8-sig").split("\n"))
        except OSError as error:
            raise UserError(
                f"{path}: no vocabulary can be read there ({error.strerror}); expected a text file "
                "with one entry per line."
            ) from error
        except ValueError as error:
            raise UserError(f"{path}: not a {cls.model} vocabulary: {error}.") from error

    @classmethod
    def from_lines(cls, lines: Sequence[str]) -> Self:
        """The tokenizer of a vocabulary file's lines; raise ValueError for what is wrong."""
        raise NotImplementedError

    @cached_property
    def sha256(self) -> str:
        """Fingerprint of the entries in the order of their ids."""
        return super().sha256

    @cached_property
    def _jieba(self) -> Any:
        return make_segmenter()

    def _id(self, part: str, start: int) -> int | None:
        """The id of a part of a word, if it is an entry. `start`: where in the word it begins."""
        return self.ids.get(part)

    def _match(self, word: str) -> Iterator[tuple[str, int]]:
        """Yield the parts of a word and their ids; a character without an entry is unknown."""
        start = 0
        while start < len(word):
            for end in range(min(len(word), start + self._longest), start, -1):
                index = self._id(word[start:end], start)
                if index is not None:
                    break
            yield word[start:end], self.unk if index is None else index
            start = end

    def _cut_word(self, word: str) -> tuple[int, ...]:
        if len(word) > MAX_WORD:
            return (self.unk,)
        return tuple(index for _, index in self._match(word))

    def _by_characters(self, line: str) -> bool:
        """Whether a line comes out as its characters, however it is cut: none of them begins a
        longer entry."""
        return len(line) <= MAX_WORD and self._begins.isdisjoint(line)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without any special entry around it.

        jieba only decides where longer entries may begin and end.
        """
        ids: list[int] = []
        for line in text.splitlines(keepends=True):  # no word contains the end of a line
            if self._by_characters(line):
                ids.extend(self.ids.get(character, self.unk) for character in line)
                continue
            for word in self._jieba.cut(line):
                ids.extend(self._pieces(word))
        return ids

    def unknown(self, text: str) -> list[str]:
        """What `encode` makes <unk> of, in order: characters, and how too long words begin."""
        if self.unk not in self.encode(text):
            return []
        unknown = []
        for word in self._jieba.cut(text):
            if len(word) > MAX_WORD:
                unknown.append(f"{word[:10]}…")
            elif self.unk in self._pieces(word):
                unknown += [part for part, index in self._match(word) if index == self.unk]
        return unknown
