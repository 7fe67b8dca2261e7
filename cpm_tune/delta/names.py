"""Module names and the endings that deltas give: OpenDelta's rule.

An ending is whole parts of a name, such as `ffn.w_out`. One that begins with `[r]` is a regular
expression, whose first match has to be such an ending. Expressions come from anybody's files, so
their length and the time of their search are bounded.
"""

from __future__ import annotations

import time
from functools import lru_cache

from cpm_tune.errors import UserError

REGULAR = "[r]"
MAX_LENGTH = 200
MAX_SECONDS = 1.0  # for all names of a backbone


def check_ending(ending: str) -> str:
    """Return an ending; raise ValueError if its regular expression is not one."""
    if ending.startswith(REGULAR):
        expression(ending.removeprefix(REGULAR))
    return ending


def ends(name: str, ending: str) -> bool:
    """Whether a module's name has this ending. Raises UserError for an expression that takes too
    long."""
    if not ending.startswith(REGULAR):
        return ("." + name).endswith("." + ending)
    found = expression(ending.removeprefix(REGULAR)).search(name)
    if found is None or found[1] != len(name):
        return False
    return found[0] == 0 or name[found[0] - 1] == "."


@lru_cache(maxsize=256)
def expression(pattern: str) -> Expression:
    """A regular expression; raise ValueError if it is too long or not one."""
    return Expression(pattern)


class Expression:
    """A regular expression with little time for all of its searches."""

    def __init__(self, pattern: str) -> None:
        import regex

        if len(pattern) > MAX_LENGTH:
            raise ValueError(
                f"a regular expression of {len(pattern):,} characters, at most {MAX_LENGTH} are "
                "accepted"
            )
        try:
            self._compiled = regex.compile(pattern)
        except (regex.error, RecursionError, OverflowError) as error:
            raise ValueError(f"'{pattern}' is not a regular expression ({error})") from error
        self.pattern, self._left = pattern, MAX_SECONDS
        self._known: dict[tuple[str, bool], tuple[int, int] | None] = {}

    def search(self, text: str, *, whole: bool = False) -> tuple[int, int] | None:
        """Where the first match begins and ends; with `whole`, only a match of all of the text.

        Raises UserError if the searches take too long.
        """
        key = text, whole
        if key not in self._known:
            began = time.perf_counter()
            find = self._compiled.fullmatch if whole else self._compiled.search
            try:
                found = find(text, timeout=max(self._left, 1e-3))
            except TimeoutError as error:
                raise UserError(
                    f"the regular expression '{self.pattern}' takes too long on names of modules; "
                    "give endings of names."
                ) from error
            self._left -= time.perf_counter() - began
            self._known[key] = None if found is None else (found.start(), found.end())
        return self._known[key]
