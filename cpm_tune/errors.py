"""Exceptions that the command line makes a sentence of: UserError, a mistake a user can mend (exit
code 2), and ProcessLostError (75)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in input or settings: the message says what, where, what was expected."""


class ProcessLostError(Exception):
    """A process of a run was killed or failed; the message says which and what to do."""

    exit_code = 75  # the system's "temporary failure": the same command goes on


def readable(message: str) -> str:
    """A message without the rest of words that nobody reads to the end, as they were given."""
    return re.sub(r"(\S{60})\S{200,}", r"\1…", message)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, else a list of what exists."""
    names = sorted(known)
    folded = {known.casefold(): known for known in names}  # LCQMC is as near to lcqmc as can be
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    if near:
        return f" Did you mean '{folded[near[0]]}'?"
    return f" Known: {', '.join(names)}." if names else ""
