"""CPM-Ant's tokenizer: jieba words, each cut greedily into the longest vocabulary entries; and that
of CPM-Ant+, which cuts the whole text so."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

from cpm_tune.common.segmenter import make_segmenter
from cpm_tune.errors import UserError

SPECIALS = ("<d>", "</d>", "<s>", "</s>", "<pad>", "<unk>")
MAX_WORD = 200


class Tokenizer:
    """Text to ids and back, after the vocabulary file of a backbone.

    One entry per line, its id the line's number (blank lines do not count); `</_>` stands for a
    space and `</n>` for a newline.
    """

    keeps_spaces = False  # whether spaces at the ends of an entry belong to it

    def __init__(self, entries: Iterable[str]) -> None:
        """Raises ValueError if a special entry is missing or an entry occurs twice."""
        ids: dict[str, int] = {}
        space = "\r\n" if self.keeps_spaces else None
        for entry in filter(None, (line.strip(space) for line in entries)):
            if entry in ids:
                raise ValueError(f"entry '{entry}' occurs twice")
            ids[entry] = len(ids)
        missing = [special for special in SPECIALS if special not in ids]
        if missing:
            raise ValueError(f"special entry '{missing[0]}' is missing")
        for written, meant in (("</_>", " "), ("</n>", "\n")):
            if written in ids:
                ids[meant] = ids.pop(written)
        self.ids = ids
        self.entries = {index: entry for entry, index in ids.items()}
        self.bos, self.eos = ids["<s>"], ids["</s>"]
        self.pad, self.unk = ids["<pad>"], ids["<unk>"]
        self.never_written = tuple(ids[special] for special in SPECIALS if special != "</s>")
        self.newline = ids.get("\n")
        self._longest = max(map(len, ids))
        self._begins = {entry[0] for entry in ids if len(entry) > 1}
        self._pieces = lru_cache(maxsize=200_000)(self._cut_word)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a vocabulary file; raise UserError naming it for what is wrong."""
        try:
            return cls(path.read_text(encoding="utf-8-sig").split("\n"))
        except OSError as error:
            raise UserError(
                f"{path}: no vocabulary can be read there ({error.strerror}); expected a text file "
                "with one entry per line."
            ) from error
        except ValueError as error:
            raise UserError(f"{path}: not a CPM-Ant vocabulary: {error}.") from error

    @cached_property
    def sha256(self) -> str:
        """Fingerprint of the entries in the order of their ids."""
        entries = (self.entries[index] for index in range(len(self.entries)))
        return hashlib.sha256("\0".join(entries).encode()).hexdigest()

    @cached_property
    def _jieba(self) -> Any:
        return make_segmenter()

    def __len__(self) -> int:
        return len(self.ids)

    def _cut_word(self, word: str) -> tuple[int, ...]:
        if len(word) > MAX_WORD:
            return (self.unk,)
        pieces: list[int] = []
        start = 0
        while start < len(word):
            for end in range(min(len(word), start + self._longest), start, -1):
                index = self.ids.get(word[start:end])
                if index is not None:
                    pieces.append(index)
                    start = end
                    break
            else:
                pieces.append(self.unk)
                start += 1
        return tuple(pieces)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without any special entry around it.

        jieba only decides where longer entries may begin and end: a line none of whose characters
        begins a longer entry comes out as its characters, however it is cut.
        """
        ids: list[int] = []
        for line in text.splitlines(keepends=True):  # no word contains the end of a line
            if len(line) <= MAX_WORD and self._begins.isdisjoint(line):
                ids.extend(self.ids.get(character, self.unk) for character in line)
                continue
            for word in self._jieba.cut(line):
                ids.extend(self._pieces(word))
        return ids

    def pieces(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids in pieces: what each is written as."""
        for index in ids:
            yield self.entries[index]

    def unknown(self, text: str) -> list[str]:
        """What `encode` makes <unk> of, in order: characters, and how too long words begin."""
        if self.unk not in self.encode(text):
            return []
        unknown = []
        for word in self._jieba.cut(text):
            if len(word) > MAX_WORD:
                unknown.append(f"{word[:10]}…")
                continue
            start = 0
            for index in self._pieces(word):
                if index == self.unk:
                    unknown.append(word[start])
                start += 1 if index == self.unk else len(self.entries[index])
        return unknown

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; inverts `encode` for text within the vocabulary.

        Raises KeyError for an id outside the vocabulary.
        """
        return "".join(self.entries[index] for index in ids)


class PlusTokenizer(Tokenizer):
    """CPM-Ant+'s (86,579 entries, ant_plus.txt): greedy longest match over the text, without jieba.

    Entries may begin with a space. Those in angle brackets are never read from text, and characters
    without an entry are dropped, as in CPM-Live's code.
    """

    keeps_spaces = True

    @cached_property
    def sha256(self) -> str:
        """Fingerprint of the rule, and of the entries in the order of their ids."""
        return hashlib.sha256(f"ant-plus\0{super().sha256}".encode()).hexdigest()

    @cached_property
    def _readable(self) -> dict[str, int]:
        marks = re.compile("<.*>", re.DOTALL)
        return {entry: i for entry, i in self.ids.items() if not marks.fullmatch(entry)}

    def _match(self, text: str) -> Iterator[tuple[str, int | None]]:
        """Yield the parts of a text and their ids, None for a character without entry."""
        start, readable, longest = 0, self._readable, self._longest
        while start < len(text):
            for end in range(min(len(text), start + longest), start, -1):
                if (index := readable.get(text[start:end])) is not None:
                    break
            yield text[start:end], index
            start = end

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without any special entry around it."""
        return [index for _, index in self._match(text) if index is not None]

    def pieces(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids in pieces: what each is written as."""
        for index in ids:
            yield self.entries[index]

    def unknown(self, text: str) -> list[str]:
        """The characters that `encode` drops, in order."""
        return [part for part, index in self._match(text) if index is None]
