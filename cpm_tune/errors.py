"""Exceptions that the command line prints as one line: UserError, a mistake that a user can fix
(exit code 2), and ProcessLostError (75)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in input or settings. The message: what, where, what was expected, what to do."""


class ProcessLostError(Exception):
    """A process of a run was killed or failed; the message says which and what to do."""

    exit_code = 75  # sysexits.h's "temporary failure": the same command resumes the run


def readable(message: str) -> str:
    """A message whose words of more than 260 characters are cut to 60."""
    return re.sub(r"(\S{60})\S{200,}", r"\1…", message)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, else a list of all known names."""
    names = sorted(known)
    folded = {known.casefold(): known for known in names}  # LCQMC means lcqmc
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    if near:
        return f" Did you mean '{folded[near[0]]}'?"
    return f" Known: {', '.join(names)}." if names else ""
