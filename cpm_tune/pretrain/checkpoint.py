"""Saves and restores a pre-training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cpm_tune.common.saved import FINGERPRINT, read_state, write_state
from cpm_tune.errors import UserError

FILE = "checkpoint.pt"
_PARTS = ("progress", "model", "optimisers")


def save(
    path: Path,
    model: nn.Module,
    optimisers: Sequence[torch.optim.Optimizer],
    progress: Mapping[str, float],
    fingerprint: Mapping[str, str],
    running: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint in place of the last one; raise UserError if it cannot be written."""
    state = {
        "progress": dict(progress),
        FINGERPRINT: dict(fingerprint),
        "running": dict(running or {}),
        "model": model.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in optimisers],
    }
    write_state(path, state, int(progress["step"]), "--resume")


def load(path: Path, fingerprint: Mapping[str, str]) -> dict[str, Any]:
    """Read a checkpoint; raise UserError if it is absent, unreadable or of another run."""
    otherwise = "start another run, with --backbone from the folder backbone beside it"
    try:
        return read_state(path, _PARTS, fingerprint, otherwise)
    except FileNotFoundError as error:
        raise UserError(
            f"{path.parent}: no checkpoint to resume from; start the run again without --resume."
        ) from error
