"""What a run tells while it trains: a JSONL log, TensorBoard events, a line on a terminal."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from cpm_tune.common.folders import EVENTS, LOG, remove
from cpm_tune.common.writing import write_atomically
from cpm_tune.tracking.track import Tracking
from cpm_tune.tuning.train import Evaluation, State, Step

_SHOWN = {"train/loss": "loss", "train/lr": "lr", "train/grad_norm": "grad_norm"}


class Reporter:
    """Called with every Step and Evaluation; use it as a context manager.

    The log goes on behind `after`; later lines are dropped. The TensorBoard events are made from
    the log, so both tell every step once.
    """

    def __init__(
        self,
        folder: Path,
        total: int,
        metric: str,
        live: bool,
        after: State,
        track: Tracking | None = None,
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.metric, self._track = metric, track
        kept = _kept(folder / LOG, after)
        write_atomically(folder / LOG, "".join(json.dumps(entry) + "\n" for entry in kept))
        self._log = (folder / LOG).open("a", encoding="utf-8", buffering=1)
        remove(folder / EVENTS)
        self._events = SummaryWriter(log_dir=str(folder / EVENTS))
        for entry in kept:
            self._show(entry)
        self._bar: Any = None
        self._dev = "-"
        if live:
            self._bar = _bar()
            self._line = self._bar.add_task(
                "training", total=total, loss="-", dev="-", metric=metric
            )

    def __enter__(self) -> Reporter:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._events.close()
        self._log.close()

    def __call__(self, event: Step | Evaluation) -> None:
        entry = {**vars(event), "time": round(time.time(), 3)}
        self._log.write(json.dumps(entry) + "\n")
        self._show(entry)
        if isinstance(event, Evaluation):
            self._dev = f"{event.dev:.4f}"
        if self._track is not None:
            self._track.log(event.step, {n: float(entry[k]) for n, k in self._names(entry).items()})
        if self._bar is not None:
            loss = f"{event.loss:.4f}"
            self._bar.update(self._line, completed=event.step, loss=loss, dev=self._dev)

    def _names(self, entry: dict[str, Any]) -> dict[str, str]:
        """What a log entry shows: the values' names and their keys."""
        return {f"dev/{self.metric}": "dev"} if "dev" in entry else _SHOWN

    def _show(self, entry: dict[str, Any]) -> None:
        for name, key in self._names(entry).items():
            self._events.add_scalar(name, entry[key], entry["step"], walltime=entry["time"])


def _kept(path: Path, after: State) -> list[dict[str, Any]]:
    """The lines of a log up to a state: its steps and its evaluations."""
    judged = {point.step for point in after.curve}
    kept = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                known = entry["step"] in judged if "dev" in entry else entry["step"] <= after.step
            except (ValueError, KeyError, TypeError):  # cut off by a crash
                continue
            if known:
                kept.append(entry)
    return kept


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}  dev {task.fields[metric]} {task.fields[dev]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
