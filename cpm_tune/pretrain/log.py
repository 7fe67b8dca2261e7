"""The training log: JSON lines, one event each, and the running means between two of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cpm_tune.backbone.pretraining import TrainingBatch
from cpm_tune.common.folders import disk_trouble
from cpm_tune.common.reading import parse_json
from cpm_tune.common.writing import write_atomically

MAKE_ROOM = "make room and continue with --resume"


@dataclass
class Progress:
    """How far a run is. `seconds` is time in training steps, without compiling and evaluating."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0


class Log:
    """Appends events to a file and reports them to the user.

    With `keep_until`, an existing log continues from that step: later events are dropped, and
    `last_event` names the last one kept.
    """

    def __init__(
        self, path: Path, *, keep_until: int | None, report: Callable[[str], None]
    ) -> None:
        self.path, self.report = path, report
        kept: list[str] = []
        if keep_until is not None and path.is_file():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [line for line in lines if _step(line) <= keep_until]
        self.last_event = parse_json(kept[-1], finite=False).get("event") if kept else None
        with disk_trouble(path, MAKE_ROOM):
            write_atomically(path, "".join(line + "\n" for line in kept))

    def write(self, event: str, progress: Progress, **values: Any) -> None:
        """Append one event."""
        row = {
            "event": event,
            "step": progress.step,
            "seconds": round(progress.seconds, 1),
            "tokens": progress.tokens,
            **_rounded(values),
        }
        with disk_trouble(self.path, MAKE_ROOM), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        if text := _line(event, row):
            self.report(text)


def _step(line: str) -> float:
    try:
        return float(parse_json(line, finite=False)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # cut off by a crash


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.8g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return value


_SUMS = ("norm", "seconds", "steps", "tokens")


class RunningMeans:
    """Mean losses per objective and source since the last flush."""

    def __init__(self, labels: Sequence[str], names: Sequence[str]) -> None:
        self.labels, self.names = labels, names
        self._reset()

    def _reset(self) -> None:
        self.nats: NDArray[np.float64] = np.zeros((len(self.labels), len(self.names)))
        self.count = np.zeros_like(self.nats)
        self.norm = self.seconds = 0.0
        self.steps = self.tokens = 0

    def state(self) -> dict[str, Any]:
        """The sums, for a checkpoint."""
        arrays = {name: torch.from_numpy(getattr(self, name)) for name in ("nats", "count")}
        return arrays | {name: getattr(self, name) for name in _SUMS}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from saved sums."""
        self.nats, self.count = state["nats"].numpy(), state["count"].numpy()
        for name in _SUMS:
            setattr(self, name, state[name])

    def add(self, losses: Tensor, batch: TrainingBatch, norm: float, seconds: float) -> None:
        """Count a step; losses (targets,). A step with 0 seconds does not count for the speed."""
        place = batch.objective * len(self.names) + batch.source
        size = self.nats.size
        self.nats += np.bincount(place, losses.double().numpy(), size).reshape(self.nats.shape)
        self.count += np.bincount(place, minlength=size).reshape(self.nats.shape)
        self.norm += norm
        self.seconds += seconds
        self.tokens += batch.n_tokens if seconds else 0
        self.steps += 1

    def flush(self) -> dict[str, Any]:
        """Return the means and start again."""

        def means(axis: int, labels: Sequence[str]) -> dict[str, float]:
            nats, count = self.nats.sum(axis), self.count.sum(axis)
            return {k: float(n / c) for k, n, c in zip(labels, nats, count, strict=True) if c}

        result = {
            "loss": float(self.nats.sum() / max(1, self.count.sum())),
            "objectives": means(1, self.labels),
            "sources": means(0, self.names),
            "grad_norm": self.norm / max(1, self.steps),
            "tokens_per_second": self.tokens / self.seconds if self.seconds else 0.0,
        }
        self._reset()
        return result


def _line(event: str, row: dict[str, Any]) -> str:
    """One line for people, or nothing."""
    where = f"step {row['step']:>6}  {row['seconds'] / 60:6.1f} min  {row['tokens'] / 1e6:7.2f}M"
    if event == "train":
        parts = "  ".join(f"{k} {v:.3f}" for k, v in row["objectives"].items())
        sources = "  ".join(f"{k} {v:.2f}" for k, v in row["sources"].items())
        speed = f"{row['tokens_per_second']:,.0f} tokens/s"
        return f"{where}  loss {row['loss']:.4f}  {parts} | {sources} | {speed}"
    if event.startswith("heldout"):
        parts = "  ".join(
            f"{name} " + "/".join(f"{part['nats_per_character']:.2f}" for part in parts.values())
            for name, parts in row["sources"].items()
        )
        labels = "/".join(next(iter(row["sources"].values())))
        return f"{where}  held out {row['mean']:.4f} nats/character ({labels}): {parts}"
    if event == "sample":
        text = (row["prefix"] + "|" + row["text"]).replace("\n", " / ")
        return f"{where}  sample  {text}"
    return f"{where}  {event}"
