"""The sinks: log file, TensorBoard, progress, Weights & Biases, MLflow. Add one here.

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

from cpm_tune.common.events import emit
from cpm_tune.common.folders import EVENTS, LOG, remove
from cpm_tune.common.progress import working
from cpm_tune.common.writing import write_atomically
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.metrics import get_metric
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


class Shown:
    """The display of `common.progress`: loss, the last dev score and the best; a line at every
    evaluation if there is no terminal."""

    package = ""

    def __init__(self, run: RunInfo) -> None:
        self._stack = contextlib.ExitStack()
        self._metric = get_metric(run.metric)
        self._loss = self._dev = ""
        self._best: tuple[float, int] | None = None
        for entry in run.earlier:
            self._take(entry)
        done = run.earlier[-1].step if run.earlier else 0
        self._work = self._stack.enter_context(working("training", run.total, "step", done))
        self._work.at(done, self._about())

    def log(self, entry: Entry) -> None:
        self._take(entry)
        emit("log", **entry.line)
        self._work.at(entry.step, self._about())
        if "dev" in entry.line:
            self._work.tell()

    def _take(self, entry: Entry) -> None:
        self._loss = f"loss {entry.line['loss']:.4f}"
        if "dev" in entry.line:
            dev, sign = entry.line["dev"], 1 if self._metric.higher_is_better else -1
            self._dev = f"dev {self._metric.name} {dev:.4f}"
            if self._best is None or sign * dev > sign * self._best[0]:
                self._best = dev, entry.step

    def _about(self) -> str:
        best = f"best {self._best[0]:.4f} at step {self._best[1]:,}" if self._best else ""
        return ", ".join(filter(None, (self._loss, self._dev, best)))

    def finish(self, ok: bool) -> None:
        self._stack.close()


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
    "progress": Shown,
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
