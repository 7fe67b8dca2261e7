"""Puts off Ctrl-C and SIGTERM until a training step is whole: what is then saved is consistent."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAID = b"stopping after this step; once more stops at once, without saving\n"


class Deferred:
    """A context manager: the first signal sets `requested`, the second raises KeyboardInterrupt.

    Signals that the process ignores stay ignored (a shell's background jobs ignore Ctrl-C). Outside
    of the main thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        os.write(2, _SAID)  # print is not safe in a handler

    def __enter__(self) -> Deferred:
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
