"""Trackers beside TensorBoard, off unless asked for: Weights & Biases and MLflow.

Their own environment variables say where they write: WANDB_MODE, MLFLOW_TRACKING_URI, ... What
goes wrong before a run begins is an error; what goes wrong later is said once and ends the
tracking, not the run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from cpm_tune.errors import UserError
from cpm_tune.schema.spec import RunSpec, flattened

PROJECT = "cpm-tune"


class Tracker(Protocol):
    """One service. Names of values are slash-separated, such as train/loss and dev/accuracy."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Values of a training step."""

    def finish(self, ok: bool) -> None:
        """The run is over."""


class WandB:
    """A run of Weights & Biases, its files in the run's folder."""

    def __init__(self, spec: RunSpec, folder: Path) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=spec.run_id,
            group=spec.task,
            config=spec.model_dump(mode="json"),
            dir=str(folder),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, ok: bool) -> None:
        self._run.finish(exit_code=0 if ok else 1)


class MLflow:
    """A run of MLflow, in the experiment cpm-tune."""

    def __init__(self, spec: RunSpec, folder: Path) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        run = self._client.create_run(experiment, run_name=spec.run_id)
        self._id = run.info.run_id
        settings = [Param(key, str(value)[:500]) for key, value in flattened(spec).items()]
        self._client.log_batch(self._id, params=settings)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def finish(self, ok: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if ok else "FAILED")


TRACKERS: Mapping[str, tuple[str, type[WandB] | type[MLflow]]] = {
    "wandb": ("wandb", WandB),
    "mlflow": ("mlflow", MLflow),
}


def check(names: Sequence[str]) -> None:
    """Raise UserError for a tracker whose package is not installed."""
    for name in names:
        if importlib.util.find_spec(TRACKERS[name][0]) is None:
            raise UserError(f"run.track {name}: not installed; run: pip install 'cpm-tune[{name}]'")


class Tracking:
    """The trackers of one run; without any, nothing is done."""

    def __init__(self, names: Sequence[str], spec: RunSpec, folder: Path) -> None:
        self._open: dict[str, Tracker] = {}
        for name in names:
            try:
                self._open[name] = TRACKERS[name][1](spec, folder)
            except Exception as error:  # whatever a service raises
                self.finish(False)
                said = " ".join(str(error).split())
                raise UserError(f"run.track {name}: cannot be opened ({said}).") from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send values to every tracker."""
        self._each(lambda tracker: tracker.log(step, values))

    def finish(self, ok: bool) -> None:
        """Close every tracker."""
        self._each(lambda tracker: tracker.finish(ok))
        self._open.clear()

    def _each(self, do: Any) -> None:
        for name, tracker in list(self._open.items()):
            try:
                do(tracker)
            except Exception as error:  # a service that fails does not cost the run
                del self._open[name]
                print(f"warning    tracking with {name} ended: {error}", file=sys.stderr)


@contextlib.contextmanager
def tracking(names: Sequence[str], spec: RunSpec, folder: Path) -> Iterator[Tracking]:
    """Track a run: closed as failed if it raises."""
    track = Tracking(names, spec, folder)
    try:
        yield track
    except BaseException:
        track.finish(False)
        raise
    track.finish(True)
