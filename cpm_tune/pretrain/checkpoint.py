"""Saves and restores a pre-training run: one file, whole or absent, tensors only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

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
    """Write beside the last checkpoint, flush, rename. If that fails, the last one stays.

    Raises UserError saying why, and that the last good checkpoint is still there.
    """
    part = path.with_name(path.name + ".part")
    state = {
        "progress": dict(progress),
        "fingerprint": dict(fingerprint),
        "running": dict(running or {}),
        "model": model.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in optimisers],
    }
    try:
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        kept = f"the last good one is kept in {path}" if path.is_file() else "there is none before"
        raise UserError(
            f"step {int(progress['step'])}: the checkpoint could not be written "
            f"({str(error).splitlines()[0]}); {kept}. Make room and go on with --resume."
        ) from error


def load(path: Path, fingerprint: Mapping[str, str]) -> dict[str, Any]:
    """Read a checkpoint; raise UserError if it is unreadable or of another run."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        own, _ = state["fingerprint"].get, [state[key] for key in _PARTS]
    except FileNotFoundError as error:
        raise UserError(
            f"{path.parent}: no checkpoint to resume from; start the run again without --resume."
        ) from error
    except Exception as error:  # a broken file can make torch.load raise anything
        line = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UserError(
            f"{path}: not a readable checkpoint ({line}); start another run, "
            "with --backbone from the folder backbone beside it."
        ) from error
    for key, value in fingerprint.items():
        if own(key) != value:
            raise UserError(
                f"{path}: the checkpoint belongs to another {key} ({str(own(key))[:12]}, now "
                f"{value[:12]}); resume with what it was started with, or use another --out."
            )
    return state
