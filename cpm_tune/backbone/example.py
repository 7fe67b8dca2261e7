"""An encoded row: contexts that the backbone reads, and answers to them that it scores."""

from __future__ import annotations

from dataclasses import dataclass

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Token ids, each scored given context number `context` and the ids before it. The first `lead`
    ids are in the loss only: a family's mark of where answers begin."""

    context: int
    ids: Ids
    lead: int = 0


@dataclass(frozen=True, slots=True)
class Example:
    """One row, encoded. A candidate answer's score is the sum over its tokens.

    Several candidates may name one context; a context that no candidate names is one to continue.
    `dropped`: the answered examples before the prompt for which there was no room.
    `gold` is the index of the right candidate, -1 where there is none. How contexts and answers
    become sequences, masks and positions is the backbone's own business.
    """

    id: str
    contexts: tuple[Ids, ...]
    candidates: tuple[Answer, ...]
    gold: int
    truncated: bool
    dropped: int = 0
