"""What a terminal shows: escape sequences in names and texts of files are shown, not obeyed."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, cast

from cpm_tune.errors import escaped


class EscapedStream:
    """A terminal's stream that writes control characters as escapes, but for newlines and tabs."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(escaped(text, keep="\n\t"))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def safe_output() -> Iterator[None]:
    """Escape what standard output and error cannot show or must not obey.

    On a terminal, those are control characters; anywhere, characters that the encoding lacks.
    Progress displays, which move the cursor, write to `obeyed`.
    """
    with contextlib.ExitStack() as stack:
        streams = (
            (sys.stdout, contextlib.redirect_stdout),
            (sys.stderr, contextlib.redirect_stderr),
        )
        for stream, redirect in streams:
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
                if stream.isatty():
                    stack.enter_context(redirect(cast(TextIO, EscapedStream(stream))))
        yield


def obeyed(stream: TextIO) -> TextIO:
    """The stream itself, for our own escape sequences."""
    return stream.stream if isinstance(stream, EscapedStream) else stream
