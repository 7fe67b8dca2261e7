"""What a sink is: it takes the values of a run in training as they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cpm_tune.schema.spec import RunSpec


@dataclass(frozen=True)
class Entry:
    """Values of a step by slash-separated name, such as train/loss, dev/accuracy and
    final/test/accuracy; `line` is what the log file has of them; `time` in seconds since 1970."""

    step: int
    time: float
    values: Mapping[str, float]
    line: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunInfo:
    """What a sink may know of its run: `total` steps at most, the ranking `metric`, and, of a run
    that is resumed, the `earlier` entries."""

    spec: RunSpec
    folder: Path
    metric: str
    total: int = 0
    earlier: Sequence[Entry] = ()


class Sink(Protocol):
    """Where entries go: a file, a terminal, a service."""

    def log(self, entry: Entry) -> None:
        """Take one entry."""

    def finish(self, ok: bool) -> None:
        """Close: the run, or its training, is over; not `ok` if it failed."""


class SinkKind(Protocol):
    """A class of sinks. `package` is what has to be installed for a service, empty if it is none: a
    service is off unless run.track names it, and one that fails does not cost the run."""

    package: str

    def __call__(self, run: RunInfo) -> Sink:
        """Open a sink of this kind."""
