"""Runs in forked children that are killed at a chosen moment: the n-th call of a phase."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its processes")
Counted = Callable[[Callable[..., Any]], Callable[..., Any]]

# The function that a phase is the inside of; what is in none of them is training or preparation.
PHASES = {
    ("resume.py", "save"): "checkpoint",
    ("score.py", "score"): "evaluation",
    ("score.py", "score_split"): "scoring",
    ("record.py", "write_record"): "record",
    ("execute.py", "_tidy"): "record",
    ("folders.py", "complete"): "renaming",
    ("train.py", "train"): "training",
}


class Moments:
    """Counts the calls of every phase, Python's and C's; sends the process a signal at one."""

    def __init__(self, at: tuple[str, int] | None = None, number: int = signal.SIGKILL) -> None:
        self.at, self.number = at, number
        self.counts, self._stack = dict[str, int](), list[str | None]()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            code = frame.f_code
            self._stack.append(PHASES.get((os.path.basename(code.co_filename), code.co_name)))  # noqa: PTH119
        elif event == "return" and self._stack:
            self._stack.pop()
        if event in ("call", "c_call"):
            phase = next((phase for phase in reversed(self._stack) if phase), None)
            if phase is not None:
                self.counts[phase] = self.counts.get(phase, 0) + 1
                if self.at == (phase, self.counts[phase]):
                    os.kill(os.getpid(), self.number)


def in_child(action: Callable[[], object], moments: Moments | None = None) -> int:
    """Do something in a forked child and return its process id.

    It exits with 0, with the exit code of Interrupted, or with 1.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.setprofile(moments)
        action()
        code = 0
    except BaseException as error:
        sys.setprofile(None)
        code = int(getattr(error, "exit_code", 1))
        if code == 1:
            traceback.print_exc()
    finally:
        sys.setprofile(None)
        os._exit(code)


def ended(child: int, within: float = 60) -> int:
    """Wait for a child; its exit code, negative if a signal killed it."""
    limit = time.monotonic() + within
    while time.monotonic() < limit:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("the child did not end")


def killed_within(action: Callable[[Counted], object], step: int) -> bool:
    """Do something in a forked child that is killed before its n-th call of the functions that the
    action counts with its argument; whether it was."""
    left = step

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments, **options)

        return changed

    code = ended(in_child(lambda: action(counted)))
    assert code in (0, -signal.SIGKILL), code
    return code != 0
