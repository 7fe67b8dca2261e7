"""The sinks: log file, TensorBoard, progress bar, Weights & Biases, MLflow. Add one here.

The services' own environment variables decide where they write: WANDB_MODE, MLFLOW_TRACKING_URI, …
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cpm_tune.common.folders import EVENTS, LOG, remove
from cpm_tune.common.terminal import obeyed
from cpm_tune.common.writing import write_atomically
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.schema.spec import flattened
from cpm_tune.tracking.sink import Entry, RunInfo, Sink, SinkKind

PROJECT = "cpm-tune"


class LogFile:
    """log.jsonl: one line per step and evaluation. A resumed run drops the lines after its
    checkpoint."""

    package = ""

    def __init__(self, run: RunInfo) -> None:
        path = run.folder / LOG
        write_atomically(path, "".join(json.dumps(entry.line) + "\n" for entry in run.earlier))
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def log(self, entry: Entry) -> None:
        self._file.write(json.dumps(entry.line) + "\n")

    def finish(self, ok: bool) -> None:
        self._file.close()


class TensorBoard:
    """Events in the run's folder, made from the log, so both have every step once."""

    package = ""

    def __init__(self, run: RunInfo) -> None:
        from torch.utils.tensorboard import SummaryWriter

        remove(run.folder / EVENTS)
        self._writer = SummaryWriter(log_dir=str(run.folder / EVENTS))
        for entry in run.earlier:
            self.log(entry)

    def log(self, entry: Entry) -> None:
        for name, value in entry.values.items():
            self._writer.add_scalar(name, value, entry.step, walltime=entry.time)

    def finish(self, ok: bool) -> None:
        self._writer.close()


class ProgressBar:
    """A bar on standard error with the loss and the last dev score; it vanishes at the end."""

    package = ""

    def __init__(self, run: RunInfo) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  dev {task.fields[metric]} {task.fields[dev]}"),
            TimeRemainingColumn(),
            console=Console(file=obeyed(sys.stderr)),
            transient=True,
        )
        shown: dict[str, Any] = {"loss": "-", "dev": "-", "metric": run.metric}
        self._task = self._bar.add_task("training", total=run.total, **shown)
        self._bar.start()

    def log(self, entry: Entry) -> None:
        shown: dict[str, Any] = {
            key: f"{entry.line[key]:.4f}" for key in ("loss", "dev") if key in entry.line
        }
        self._bar.update(self._task, completed=entry.step, **shown)

    def finish(self, ok: bool) -> None:
        self._bar.stop()


class WandB:
    """A run of Weights & Biases, its files in the run's folder."""

    package = "wandb"

    def __init__(self, run: RunInfo) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.spec.run_id,
            group=run.spec.task,
            config=run.spec.model_dump(mode="json"),
            dir=str(run.folder),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, entry: Entry) -> None:
        self._run.log(dict(entry.values), step=entry.step)

    def finish(self, ok: bool) -> None:
        self._run.finish(exit_code=0 if ok else 1)


class MLflow:
    """A run of MLflow, in the experiment cpm-tune."""

    package = "mlflow"

    def __init__(self, run: RunInfo) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        self._id = self._client.create_run(experiment, run_name=run.spec.run_id).info.run_id
        settings = [Param(key, str(value)[:500]) for key, value in flattened(run.spec).items()]
        self._client.log_batch(self._id, params=settings)

    def log(self, entry: Entry) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, entry.step) for name, value in entry.values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def finish(self, ok: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if ok else "FAILED")


SINKS: dict[str, SinkKind] = {
    "log": LogFile,
    "tensorboard": TensorBoard,
    "bar": ProgressBar,
    "wandb": WandB,
    "mlflow": MLflow,
}


def check(names: Sequence[str]) -> None:
    """Raise UserError for a name in run.track that is not a service, or is not installed."""
    services = [name for name, kind in SINKS.items() if kind.package]
    for name in names:
        if name not in services:
            known = did_you_mean(name, services)
            raise UserError(f"run.track: there is no service '{name}'.{known}")
        if importlib.util.find_spec(SINKS[name].package) is None:
            raise UserError(f"run.track {name}: not installed; run: pip install 'cpm-tune[{name}]'")


@contextlib.contextmanager
def open_sinks(names: Sequence[str], run: RunInfo) -> Iterator[Callable[[Entry], None]]:
    """Open the sinks of these names for a run, and yield what logs an entry in each of them.

    Raises UserError for a service that cannot be opened. One that fails later is closed with one
    warning, and the run continues. Without names, nothing is done.
    """
    sinks: dict[str, Sink] = {}

    def each(do: Callable[[Sink], None]) -> None:
        for name, sink in list(sinks.items()):
            try:
                do(sink)
            except Exception as error:  # whatever a service raises
                if not SINKS[name].package:
                    raise
                del sinks[name]
                print(f"warning    tracking with {name} ended: {error}", file=sys.stderr)

    try:
        for name in names:
            try:
                sinks[name] = SINKS[name](run)
            except Exception as error:
                if not SINKS[name].package:
                    raise
                why = " ".join(str(error).split())
                raise UserError(f"run.track {name}: cannot be opened ({why}).") from error
        yield lambda entry: each(lambda sink: sink.log(entry))
    except BaseException:
        each(lambda sink: sink.finish(False))
        raise
    each(lambda sink: sink.finish(True))
