"""Events for other programs: with `--json` a command prints one JSON object per line, nothing else.

Whatever a command calls tells what happens with `emit`, and need not know whether anybody listens.
Every event has `event`, its kind, and `time`, seconds since 1970. docs/runs.md lists the kinds.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TextIO

Write = Callable[[str], None]
_WRITE: ContextVar[Write | None] = ContextVar("write", default=None)


def emit(event: str, **values: Any) -> None:
    """Report an event, if anybody listens. Values are JSON values; a path becomes a text."""
    if (write := _WRITE.get()) is not None:
        write(_line(event, values))


def listening() -> bool:
    """Whether events are printed."""
    return _WRITE.get() is not None


def emitter() -> Callable[..., None]:
    """`emit` for a thread that has not inherited the context."""
    write = _WRITE.get()

    def to_same(event: str, **values: Any) -> None:
        if write is not None:
            write(_line(event, values))

    return to_same


@contextlib.contextmanager
def printed() -> Iterator[None]:
    """Print events on standard output; a line that is printed there inside is an event `text`."""
    stream, lock = sys.stdout, threading.Lock()

    def write(line: str) -> None:
        with lock, contextlib.suppress(ValueError):  # closed
            stream.write(line + "\n")
            stream.flush()

    token = _WRITE.set(write)
    texts = _Texts(write)
    try:
        with contextlib.redirect_stdout(texts):
            yield
    finally:
        texts.close_line()
        _WRITE.reset(token)


def _line(event: str, values: dict[str, Any]) -> str:
    content = {"event": event, "time": round(time.time(), 3), **values}
    return json.dumps(content, ensure_ascii=False, default=str)


class _Texts(io.TextIOBase, TextIO):
    """A standard output whose lines become events."""

    def __init__(self, write: Write) -> None:
        self._write, self._begun = write, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._write(_line("text", {"text": line}))
        return len(text)

    def close_line(self) -> None:
        if self._begun:
            self.write("\n")
