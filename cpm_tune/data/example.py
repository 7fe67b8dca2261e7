"""An encoded row: token ids, and the positions that are scored, each for one token."""

from __future__ import annotations

from dataclasses import dataclass

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """The hidden state at `position` of sequence number `sequence` is scored for `token`."""

    sequence: int
    position: int
    token: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """Ids from the soft prompt on; positions before `n_context` are visible to all others."""

    ids: Ids
    n_context: int


@dataclass(frozen=True, slots=True)
class Example:
    """One row, encoded. A candidate answer's score is the sum over its targets.

    `gold` is the index of the right candidate, -1 where there is none.
    """

    id: str
    sequences: tuple[Sequence, ...]
    candidates: tuple[tuple[Target, ...], ...]
    gold: int
    truncated: bool

    @property
    def n_tokens(self) -> int:
        """Length of all sequences together."""
        return sum(len(sequence.ids) for sequence in self.sequences)
