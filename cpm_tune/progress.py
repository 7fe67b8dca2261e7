"""What a run tells while it trains: a JSONL log, TensorBoard events, a line on a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from cpm_tune.track import Tracking
from cpm_tune.train import Evaluation, Step

LOG, EVENTS = "log.jsonl", "tensorboard"


class Reporter:
    """Called with every Step and Evaluation; use it as a context manager."""

    def __init__(
        self, folder: Path, total: int, metric: str, live: bool, track: Tracking | None = None
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.metric, self._track = metric, track
        self._log = (folder / LOG).open("w", encoding="utf-8", buffering=1)
        self._events = SummaryWriter(log_dir=str(folder / EVENTS))
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
        self._log.write(json.dumps(vars(event)) + "\n")
        if isinstance(event, Step):
            names = ("loss", "lr", "grad_norm")
            values = {f"train/{name}": float(getattr(event, name)) for name in names}
        else:
            values = {f"dev/{self.metric}": event.dev}
            self._dev = f"{event.dev:.4f}"
        for name, value in values.items():
            self._events.add_scalar(name, value, event.step)
        if self._track is not None:
            self._track.log(event.step, values)
        if self._bar is not None:
            loss = f"{event.loss:.4f}"
            self._bar.update(self._line, completed=event.step, loss=loss, dev=self._dev)


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
