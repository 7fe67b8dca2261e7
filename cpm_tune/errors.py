"""The one exception for mistakes a user can mend; the command line turns it into exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in input or settings: the message says what, where, what was expected."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, else a list of what exists."""
    names = sorted(known)
    folded = {known.casefold(): known for known in names}  # LCQMC is as near to lcqmc as can be
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    if near:
        return f" Did you mean '{folded[near[0]]}'?"
    return f" Known: {', '.join(names)}." if names else ""
