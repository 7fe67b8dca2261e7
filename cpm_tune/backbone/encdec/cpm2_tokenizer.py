"""CPM-2's tokenizers, Chinese and Chinese-English: jieba words, each cut into the longest entries.

A space is the entry ▂ and a newline ▃. Chinese (26,240 entries): full-width signs are read as
half-width ones, except ，。！（）？、；：. Chinese-English (51,968): within a word, what is not
Chinese is looked up with ## before it; a space between two entries that are not Chinese is left
out, and put back in a decoded text. Entries in angle brackets are never read from text: their ids
are inserted. Source: tokenization_enc_dec.py and tokenization_enc_dec_encn.py of
TsinghuaAI/CPM-2-Finetune (MIT), of which the second doubles a text of one entry; here it stays one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import count, takewhile

from cpm_tune.backbone.longest_match import LongestMatch

_SPACE, _NEWLINE = "\u2582", "\u2583"
_BEGIN = ("<unk>", "<s>", "</s>", _NEWLINE, "<sep>", "<pad>", "<mask>")
# Ids that CPM-2 was trained with; of Chinese-English if there is <go>.
PUBLISHED = {entry: index for index, entry in enumerate(_BEGIN)}
CHINESE = {**PUBLISHED, "<eod>": 7, _SPACE: 10}
BILINGUAL = {**PUBLISHED, "<go>": 7, "<eod>": 8, _SPACE: 11}
_KEPT = "，。！（）？、；："
_HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF00, 0xFF5F) if chr(code) not in _KEPT}
_HALF_WIDTH[0x3000] = 0x20
_CHINESE = re.compile("[\u4e00-\u9fff]")
_INSIDE = "##"


class CPM2Tokenizer(LongestMatch):
    """Text to ids and back, of Chinese.

    `bos` begins the decoder's input. `sentinels`: <s_0>, <s_1>, ...; <s_0> comes before an answer
    and <s_1> (`eos`) after it. Raises ValueError if the lines are not CPM-2's vocabulary.
    """

    model = "CPM-2"

    def __init__(self, lines: Sequence[str]) -> None:
        entries = _read(lines)
        ids = {entry: index for index, entry in enumerate(entries)}
        super().__init__({**ids, " ": ids[_SPACE], "\n": ids[_NEWLINE]}, ids["<unk>"])
        self.entries = {index: _text(entry) for index, entry in enumerate(entries)}
        self.bos, self.sep, self.pad, self.mask = (
            ids[entry] for entry in ("<s>", "<sep>", "<pad>", "<mask>")
        )
        self.newline = ids[_NEWLINE]
        names = takewhile(ids.__contains__, map("<s_{}>".format, count()))
        self.sentinels = tuple(ids[name] for name in names)
        if len(self.sentinels) < 2:
            raise ValueError("its sentinels <s_0> and <s_1> are missing")
        self.eos = self.sentinels[1]
        specials = {ids[entry] for entry in (*_published(entries), *_BEGIN) if entry[0] == "<"}
        self.never_written = tuple(sorted({*specials, *self.sentinels} - {self.eos}))

    @classmethod
    def from_lines(cls, lines: Sequence[str]) -> CPM2Tokenizer:
        """The tokenizer of a vocabulary, Chinese or Chinese-English; raise ValueError if it is
        none of CPM-2's."""
        return (BilingualTokenizer if "<go>" in map(str.strip, lines) else CPM2Tokenizer)(lines)

    @cached_property
    def sha256(self) -> str:
        """Fingerprint of the rule, and of the entries in the order of their ids."""
        return hashlib.sha256(f"{type(self).__name__}\0{super().sha256}".encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without any special entry around it."""
        return super().encode(text.translate(_HALF_WIDTH))

    def unknown(self, text: str) -> list[str]:
        """What `encode` makes <unk> of, in order: half-width characters, beginnings of words."""
        return super().unknown(text.translate(_HALF_WIDTH))


class BilingualTokenizer(CPM2Tokenizer):
    """Text to ids and back, of Chinese and English."""

    def _id(self, part: str, start: int) -> int | None:
        return self.ids.get(_INSIDE + part if start and not _is_chinese(part) else part)

    def _by_characters(self, line: str) -> bool:
        return False  # within a word, entries begin with ##

    @cached_property
    def _english(self) -> frozenset[int]:
        return frozenset(i for i, entry in self.entries.items() if not _is_chinese(entry))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without any special entry around it."""
        ids, space, english = LongestMatch.encode(self, text), self.ids[" "], self._english
        between = zip(ids, ids[1:], ids[2:], strict=False)
        kept = [i for a, i, b in between if i != space or a not in english or b not in english]
        return [*ids[:1], *kept, *ids[1:][-1:]]

    def unknown(self, text: str) -> list[str]:
        """What `encode` makes <unk> of, in order: characters, and beginnings of words."""
        return LongestMatch.unknown(self, text)

    def pieces(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids in words, each as soon as the next one begins."""
        before = " "
        for word in self._words(ids):
            yield word if _is_chinese(before) or _is_chinese(word) else f" {word}"
            before = word

    def _words(self, ids: Iterable[int]) -> Iterator[str]:
        word = ""
        for index in ids:
            entry = self.entries[index]
            if word and entry.startswith(_INSIDE):
                word += entry.removeprefix(_INSIDE)
                continue
            if word:
                yield word
            word = entry
        if word:
            yield word

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids. Raises KeyError for an id outside the vocabulary."""
        return "".join(self.pieces(ids))


def _published(entries: Sequence[str]) -> dict[str, int]:
    return BILINGUAL if "<go>" in entries else CHINESE


def _read(lines: Sequence[str]) -> list[str]:
    """The entries of a vocabulary; raise ValueError if the special ones are not at their places."""
    entries = [line.strip() for line in lines]
    while entries and not entries[-1]:
        entries.pop()
    for entry, index in _published(entries).items():
        if index >= len(entries) or entries[index] != entry:
            there = repr(entries[index][:40]) if index < len(entries) else "nothing"
            raise ValueError(f"its entry {index} is {there}, CPM-2's is {entry}")
    if "" in entries:
        raise ValueError(f"line {entries.index('') + 1} is empty")
    if len(set(entries)) < len(entries):
        twice = next(entry for n, entry in enumerate(entries) if entry in entries[:n])
        raise ValueError(f"entry '{twice[:40]}' occurs twice")
    return entries


def _text(entry: str) -> str:
    return entry.replace(_SPACE, " ").replace(_NEWLINE, "\n")


def _is_chinese(part: str) -> bool:
    """Whether there is a Chinese character; a space counts as one."""
    return part in (" ", _SPACE) or _CHINESE.search(part) is not None
