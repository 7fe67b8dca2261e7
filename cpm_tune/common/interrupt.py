"""Ctrl-C and SIGTERM, put off until a training step is whole: what is saved is consistent."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAID = b"stopping after this step; once more stops at once, without saving\n"
NOTHING_WRITTEN = "nothing was written; repeat the command to start again"
_ONE_PRESS = 1.0  # seconds: a launcher passes on the signal that the terminal sent us already


class Interrupted(KeyboardInterrupt):
    """Stopped by a signal. `exit_code` is the shell's: 130 for Ctrl-C, 143 for SIGTERM."""

    def __init__(self, number: int, said: str = "") -> None:
        super().__init__(said)
        self.exit_code = 128 + number


class Interrupts:
    """A context manager that turns signals into `Interrupted`; while `held`, it only notes them.

    The first signal while held sets `requested`, and the code that holds is to save and raise
    `interrupted()`; a second one raises at once. Signals that the process ignores stay ignored (a
    shell's background jobs ignore Ctrl-C). Outside of the main thread, where Python allows no
    handlers, it does nothing. `message`: what `Interrupted` says where the signal raises it.
    """

    def __init__(self, speak: bool = True, message: str = "") -> None:
        self._speak, self._message = speak, message
        self._number, self._at, self._held = 0, 0.0, False
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """A signal came while held."""
        return self._number != 0

    def interrupted(self, said: str = "") -> Interrupted:
        """What to raise for the signal that came (here, or in another process of the run)."""
        return Interrupted(self._number or signal.SIGTERM, said)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Signals are noted."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Signals raise; one that came before does so now."""
        before, self._held = self._held, False
        try:
            if self.requested:
                raise self.interrupted(self._message)
            yield
        finally:
            self._held = before

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._held:
            raise Interrupted(number, self._message)
        if not self.requested:
            self._number, self._at = number, now
            if self._speak:
                os.write(2, _SAID)  # print is not safe in a handler
        elif now - self._at > _ONE_PRESS:
            raise Interrupted(number, self._message)

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            heard = [n for n in _SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
            self._before = {n: signal.signal(n, self._handle) for n in heard}
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
    """What is said when a signal ended the command."""
    said = str(stop) or "finished runs are kept, this one goes on next time"
    return f"interrupted; {said}."
