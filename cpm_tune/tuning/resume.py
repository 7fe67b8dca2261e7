"""Saves checkpoints of a run in training, atomically, and resumes from them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from cpm_tune.common.folders import CHECKPOINT
from cpm_tune.common.saved import FINGERPRINT, read_state, write_state
from cpm_tune.delta.insert import Delta
from cpm_tune.engine.engine import Engine
from cpm_tune.engine.optimizer_state import load_whole_state, whole_state
from cpm_tune.tuning.predict import Prediction
from cpm_tune.tuning.score import Selection
from cpm_tune.tuning.state import Evaluation, State

_VERSION = "1"
_PARTS = ("state", "best", "delta", "optimizer", "engine", "predictions")


class Checkpoints:
    """A run's checkpoint. `state` is that of the file in `folder`, if there is one, else the start.

    It contains the current and the best delta, the state of optimiser and engine (the loss scale),
    the curve, and the best evaluation's predictions. The order of the data and dropout follow from
    seed and step, early stopping from the curve. Raises UserError for a file that cannot be read or
    belongs to another run.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: Mapping[str, str],
        delta: Delta,
        engine: Engine,
        selection: Selection,
        minutes: float,
    ) -> None:
        self._path, self._fingerprint = folder / CHECKPOINT, {**fingerprint, "format": _VERSION}
        self._delta, self._engine, self._selection = delta, engine, selection
        self._seconds, self._saved_at = 60 * minutes, time.monotonic()
        self._stored = engine.broadcast(self._read() if engine.main else None)
        self.state = State()
        if self._stored is not None:
            known = {f.name for f in fields(State)}  # earlier versions kept more
            values = {k: v for k, v in self._stored["state"].items() if k in known}
            values["curve"] = [Evaluation(**point) for point in values["curve"]]
            self.state = State(**values, best=self._stored["best"])
        self._saved = (self.state.step, len(self.state.curve))

    def _read(self) -> dict[str, Any] | None:
        try:
            return read_state(self._path, _PARTS, self._fingerprint, "start again: --no-resume")
        except FileNotFoundError:
            return None

    def restore(self, optimizer: torch.optim.Optimizer) -> State:
        """Restore delta, optimiser, engine and predictions; return the state."""
        if self._stored is not None:
            self._delta.load_state(self._stored["delta"])
            load_whole_state(optimizer, self._stored["optimizer"])
            self._engine.load_state(self._stored["engine"])
            self._selection.best = [Prediction(**p) for p in self._stored["predictions"]]
            self._stored = None
        return self.state

    def due(self) -> bool:
        """Whether it is time for another checkpoint."""
        return time.monotonic() - self._saved_at >= self._seconds

    def save(self, state: State, optimizer: torch.optim.Optimizer) -> None:
        """Write a checkpoint, unless the last one is the same. All processes call this together,
        and one writes."""
        self._saved_at, at = time.monotonic(), (state.step, len(state.curve))
        if at == self._saved:
            return
        delta, moments = self._delta.state(), whole_state(optimizer)
        if not self._engine.main:
            self._saved = at
            return
        values = {f.name: getattr(state, f.name) for f in fields(State) if f.name != "best"}
        values["curve"] = [asdict(point) for point in state.curve]
        content = {
            FINGERPRINT: self._fingerprint,
            "state": values,
            "best": state.best,
            "delta": delta,
            "optimizer": moments,
            "engine": self._engine.state(),
            "predictions": [vars(p) for p in self._selection.best],
        }
        write_state(self._path, content, state.step, "the same command")
        self._saved = at
