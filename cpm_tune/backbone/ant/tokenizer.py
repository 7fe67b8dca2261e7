"""CPM-Ant's tokenizer: jieba words, each cut greedily into the longest vocabulary entries; and that
of CPM-Ant+, which cuts the whole text so."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Self

from cpm_tune.backbone.longest_match import LongestMatch

SPECIALS = ("<d>", "</d>", "<s>", "</s>", "<pad>", "<unk>")


class Tokenizer(LongestMatch):
    """Text to ids and back, after the vocabulary file of a backbone.

    One entry per line, its id the line's number (blank lines do not count); `</_>` stands for a
    space and `</n>` for a newline.
    """

    model = "CPM-Ant"
    drops_unknown = True
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
        super().__init__(ids, ids["<unk>"])
        self.entries = {index: entry for entry, index in ids.items()}
        self.bos, self.eos, self.pad = ids["<s>"], ids["</s>"], ids["<pad>"]
        self.never_written = tuple(ids[special] for special in SPECIALS if special != "</s>")
        self.newline, self.mask = ids.get("\n"), ids.get("<mask>")

    @classmethod
    def from_lines(cls, lines: Sequence[str]) -> Self:
        return cls(lines)


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

    def _id(self, part: str, start: int) -> int | None:
        return self._readable.get(part)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without any special entry around it."""
        return [index for _, index in self._match(text) if index != self.unk]

    def unknown(self, text: str) -> list[str]:
        """The characters that `encode` drops, in order."""
        return [part for part, index in self._match(text) if index == self.unk]
