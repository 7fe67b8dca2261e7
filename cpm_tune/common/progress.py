"""How far long work is: a bar on a terminal; elsewhere plain lines, at least one a minute.

A command opens a display with `shown`. Whatever it calls tells how far it is with `working`, and
need not know whether there is a display: without one nothing is shown.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from cpm_tune.common.events import emitter, listening
from cpm_tune.common.sizes import counted, duration
from cpm_tune.common.terminal import obeyed

EVERY = 60.0  # seconds, at most, between two lines
_BEAT = 1.0  # seconds between two looks at the clock
T = TypeVar("T")


@dataclass(eq=False)
class Work:
    """One stretch of work: `done` of `total` units (0: unknown); `about` is shown behind them."""

    what: str
    total: int
    unit: str
    done: int
    display: Display
    about: str = ""

    def advance(self, n: int = 1) -> None:
        """Count some more units as done."""
        self.at(self.done + n)

    def at(self, done: int, about: str | None = None) -> None:
        """Set how many units are done, and what is shown behind them."""
        self.done = done
        self.about = self.about if about is None else about
        self.display.changed(self)

    def tell(self) -> None:
        """Show the present state now: something noteworthy happened."""
        self.display.tell()

    def __str__(self) -> str:
        count = f" {self.done:,} of {counted(self.total, self.unit)}" if self.total else ""
        return f"{self.what}{count}" + (f", {self.about}" if self.about else "")


class Display(Protocol):
    """Shows stretches of work, of which one may be inside another."""

    def begin(self, work: Work) -> None:
        """A stretch of work begins."""

    def changed(self, work: Work) -> None:
        """It has come further."""

    def end(self, work: Work) -> None:
        """It is over, or failed."""

    def tell(self) -> None:
        """Show the present state now."""

    def tick(self) -> None:
        """Time has passed."""

    def told(self) -> None:
        """Something else was printed, so that a line is not due."""

    def close(self) -> None:
        """Nothing is shown from now on."""


class Lines:
    """A line when there is something to tell, and when there was none for a minute.

    `write` gets each line, by default standard error; `clock` returns seconds. `name` stands in
    every line, to tell several processes apart.
    """

    def __init__(
        self,
        name: str = "",
        write: Callable[[str], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._write, self._clock = name, write or _to_stderr, clock
        self._works: list[tuple[Work, float, int]] = []  # with when and where they began
        self._opened = self._last = clock()
        self._lock = threading.Lock()  # a thread calls `tick`

    def begin(self, work: Work) -> None:
        with self._lock:
            self._works.append((work, self._clock(), work.done))

    def changed(self, work: Work) -> None:
        pass

    def end(self, work: Work) -> None:
        with self._lock:
            self._works = [entry for entry in self._works if entry[0] is not work]

    def tell(self) -> None:
        with self._lock:
            self._print(self._clock())

    def tick(self) -> None:
        with self._lock:
            if (now := self._clock()) - self._last >= EVERY:
                self._print(now)

    def told(self) -> None:
        self._last = self._clock()

    def close(self) -> None:
        pass

    def _print(self, now: float) -> None:
        self._last = now
        parts = [str(work) for work, _, _ in self._works]
        if not parts:
            parts = [f"working, {duration(now - self._opened)} so far"]
        if left := self._left(now):
            parts.append(f"about {left} left")
        name = f"{self._name}: " if self._name else ""
        self._write(f"progress   {name}{'; '.join(parts)}")

    def _left(self, now: float) -> str:
        """The time that the outermost work still takes, at the speed so far."""
        work, began, first = self._works[0] if self._works else (None, 0.0, 0)
        if work is None or not first < work.done < work.total:
            return ""
        return duration((now - began) / (work.done - first) * (work.total - work.done))


def _to_stderr(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # closed: the work goes on
        print(line, file=sys.stderr, flush=True)


class Bars:
    """A bar for each stretch of work of several units, which vanishes at its end."""

    def __init__(self) -> None:
        self._bars: Any = None
        self._tasks: dict[Work, Any] = {}

    def begin(self, work: Work) -> None:
        if work.total == 1:
            return
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
        total = work.total or None  # None moves to and fro
        self._tasks[work] = self._bars.add_task(
            work.what, total=total, completed=work.done, about=work.about
        )

    def changed(self, work: Work) -> None:
        if work in self._tasks:
            self._bars.update(self._tasks[work], completed=work.done, about=work.about)

    def end(self, work: Work) -> None:
        if work in self._tasks:
            self._bars.remove_task(self._tasks.pop(work))
            if not self._tasks:
                self.close()

    def tell(self) -> None:
        pass

    tick = told = tell

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def _bars() -> Any:
    from rich import progress
    from rich.console import Console
    from rich.table import Column

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=12),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn(
            "{task.fields[about]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
        ),
        console=Console(file=obeyed(sys.stderr)),
        expand=True,
        redirect_stdout=sys.stdout.isatty(),
        transient=True,
    )


class Events:
    """Another display, and every stretch of work as events `progress`: at most one a second."""

    def __init__(self, other: Display) -> None:
        self._other, self._emit = other, emitter()
        self._last = dict[Work, float]()

    def begin(self, work: Work) -> None:
        self._other.begin(work)
        self._report(work)

    def changed(self, work: Work) -> None:
        self._other.changed(work)
        if time.monotonic() - self._last.get(work, 0.0) >= _BEAT:
            self._report(work)

    def end(self, work: Work) -> None:
        self._other.end(work)
        self._report(work, over=True)
        self._last.pop(work, None)

    def tell(self) -> None:
        self._other.tell()

    def tick(self) -> None:
        self._other.tick()

    def told(self) -> None:
        self._other.told()

    def close(self) -> None:
        self._other.close()

    def _report(self, work: Work, over: bool = False) -> None:
        self._last[work] = time.monotonic()
        values = {"what": work.what, "done": work.done, "total": work.total or None}
        self._emit("progress", **values, unit=work.unit, about=work.about, over=over)


_DISPLAY: ContextVar[Display | None] = ContextVar("display", default=None)
_LABEL: ContextVar[str] = ContextVar("label", default="")


@contextlib.contextmanager
def shown(display: Display | None = None, *, unless: bool = False) -> Iterator[None]:
    """Show the work inside: on `display`, by default bars on a terminal and lines anywhere else.

    Nothing is shown if `unless` is true. If anybody listens to events, they get the work in any
    case.
    """
    if unless and not listening():
        yield
        return
    display = _NOWHERE if unless else display or (Bars() if sys.stderr.isatty() else Lines())
    display = Events(display) if listening() else display
    token, over = _DISPLAY.set(display), threading.Event()

    def beat() -> None:
        while not over.wait(_BEAT):
            display.tick()

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        _DISPLAY.reset(token)
        display.close()


@contextlib.contextmanager
def labelled(label: str) -> Iterator[None]:
    """Put a label before all work inside, which is otherwise shown in the same words as others."""
    token = _LABEL.set(f"{label}: ")
    try:
        yield
    finally:
        _LABEL.reset(token)


@contextlib.contextmanager
def working(what: str, total: int = 0, unit: str = "row", done: int = 0) -> Iterator[Work]:
    """Show a stretch of work, if a display is open; `unit` is singular."""
    display = _DISPLAY.get() or _NOWHERE
    work = Work(_LABEL.get() + what, total, unit, done, display)
    display.begin(work)
    try:
        yield work
    finally:
        display.end(work)


def told() -> None:
    """Something was printed: the next line can wait for a minute."""
    (_DISPLAY.get() or _NOWHERE).told()


def tracked(items: Iterable[T], what: str, total: int, unit: str = "row") -> Iterator[T]:
    """The items, each counted as done when the next one is asked for."""
    with working(what, total, unit) as work:
        for item in items:
            yield item
            work.advance()


class _Nowhere:
    """The display if there is none."""

    def begin(self, work: Work) -> None:
        pass

    changed = end = begin

    def tell(self) -> None:
        pass

    tick = told = close = tell


_NOWHERE = _Nowhere()
