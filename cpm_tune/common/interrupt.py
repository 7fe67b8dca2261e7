"""Ctrl-C, SIGTERM and SIGUSR1 (a cluster's warning that a job will be ended), deferred to the end
of a training step: saved state is consistent."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)
_STOPPING = b"stopping after this step; press again to stop at once, without saving\n"
NOTHING_WRITTEN = "nothing was written, repeat the command to start again"
_ONE_PRESS = 1.0  # seconds: a launcher forwards the signal that the terminal has sent us already


class Interrupted(KeyboardInterrupt):
    """Stopped by a signal. `exit_code` is the shell's: 130 for Ctrl-C, 143 for SIGTERM, 138 for
    SIGUSR1."""

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message)
        self.number, self.exit_code = number, 128 + number


class Interrupts:
    """A context manager that turns signals into `Interrupted`; inside `deferred` it notes them.

    The first deferred signal sets `requested`: the caller should save and raise `interrupted()`. A
    second one raises at once. Ignored signals stay ignored (a shell's background jobs ignore
    Ctrl-C). Outside the main thread, where Python allows no handlers, this does nothing.
    `message`: the text of an `Interrupted` that a signal raises.
    """

    def __init__(self, speak: bool = True, message: str = "") -> None:
        self._speak, self._message = speak, message
        self._number, self._at, self._deferring = 0, 0.0, False
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal came while signals were deferred."""
        return self._number != 0

    def interrupted(self, message: str = "") -> Interrupted:
        """The exception for the signal that came (here, or in another process of the run)."""
        return Interrupted(self._number or signal.SIGTERM, message)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Note signals instead of raising."""
        before, self._deferring = self._deferring, True
        try:
            yield
        finally:
            self._deferring = before

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Raise on signals again; one that was noted before raises now."""
        before, self._deferring = self._deferring, False
        try:
            if self.requested:
                raise self.interrupted(self._message)
            yield
        finally:
            self._deferring = before

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._deferring:
            raise Interrupted(number, self._message)
        if not self.requested:
            self._number, self._at = number, now
            if self._speak:
                os.write(2, _STOPPING)  # print is not safe in a handler
        elif now - self._at > _ONE_PRESS:
            raise Interrupted(number, self._message)

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            handled = [n for n in _SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
            self._before = {n: signal.signal(n, self._handle) for n in handled}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def interruption(stop: KeyboardInterrupt) -> str:
    """The line that the command prints after a signal ended it."""
    return f"interrupted; {str(stop) or 'finished runs are kept, repeat the command to resume'}."
