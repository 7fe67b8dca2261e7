"""What the package asks of a family's tokenizer, and of the turns that a chat template makes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

Parts = tuple[str | int, ...]  # of a sequence: texts to encode with what they touch, and ids


def joined(
    parts: Iterable[str | int | None],
    encode: Callable[[str], list[int]],
    first: Callable[[str], list[int]] | None = None,
) -> tuple[int, ...]:
    """The ids of parts; texts that touch are encoded as one, the first of all by `first` if given.
    None keeps texts apart."""
    ids, way = list[int](), first or encode
    for kind, group in groupby(parts, key=type):
        if kind is int:
            ids += (part for part in group if isinstance(part, int))
        elif whole := "".join(part for part in group if isinstance(part, str)):
            ids += way(whole)
            way = encode
    return tuple(ids)


class Tokenizer(Protocol):
    """Text to ids and back. `never_written` are ids that no generated text contains."""

    @property
    def entries(self) -> Mapping[int, str]:
        """What each id is written as."""
        ...

    @property
    def eos(self) -> int: ...

    @property
    def pad(self) -> int: ...

    @property
    def unk(self) -> int: ...

    @property
    def newline(self) -> int | None:
        """The id of a newline, if it has one of its own."""
        ...

    @property
    def never_written(self) -> tuple[int, ...]: ...

    @property
    def sha256(self) -> str:
        """Fingerprint of all that decides ids."""
        ...

    @property
    def drops_unknown(self) -> bool:
        """Whether a prompt to continue loses what `encode` makes `unk` of, as in CPM-Ant's code."""
        ...

    def __len__(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without any special entry around it."""
        ...

    def opening(self, text: str) -> list[int]:
        """The ids of a text with which a context begins."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids."""
        ...

    def pieces(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids in pieces, each as soon as it is known."""
        ...

    def unknown(self, text: str) -> list[str]:
        """What `encode` makes `unk` of, in order."""
        ...


class TokenizerDefaults:
    """What most tokenizers answer alike, to inherit from."""

    entries: Mapping[int, str]
    unk: int
    newline: int | None = None
    drops_unknown = False

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def sha256(self) -> str:
        entries = (self.entries[index] for index in sorted(self.entries))
        return hashlib.sha256("\0".join(entries).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        raise NotImplementedError

    def opening(self, text: str) -> list[int]:
        return self.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.entries[index] for index in ids)

    def pieces(self, ids: Iterable[int]) -> Iterator[str]:
        for index in ids:
            yield self.entries[index]

    def unknown(self, text: str) -> list[str]:
        return [character for character in text if self.unk in self.encode(character)]


@dataclass(frozen=True)
class Turns:
    """What a chat template puts around a conversation's turns.

    opening: before the first user's text. ask: between the last user's text and the answer to it.
    answered, again: between a user's text and an answer given earlier, and from there to the next
    user's text; `again` is None if the template treats turns unequally. end: the id that ends an
    answer. strips: whether a user's text loses blanks at its start, and at its end.
    """

    opening: Parts
    ask: Parts
    answered: Parts
    again: Parts | None
    end: int
    strips: tuple[bool, bool]

    def strip(self, before: list[Any], last: list[Any], first: int = 0) -> None:
        """Strip a user's turn as the template does: it begins with part `first` of `before`, and
        ends with `last`."""
        left, right = self.strips
        if left and len(before) > first and isinstance(text := before[first], str):
            before[first] = text.lstrip()
        if right and last and isinstance(text := last[-1], str):
            last[-1] = text.rstrip()
