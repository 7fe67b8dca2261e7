"""A saved state of training: one file, whole or absent; tensors and plain values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpm_tune.common.writing import replacing
from cpm_tune.errors import UserError

FINGERPRINT = "fingerprint"


def write_tensors(
    path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file with the permissions of any new file."""
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode & 0o777  # safetensors would let only the owner read it
    save_file(dict(state), path, metadata=dict(metadata) if metadata else None)
    path.chmod(mode)


def write_state(path: Path, state: Mapping[str, Any], step: int, go_on: str) -> None:
    """Write beside the last one, flush, rename. If that fails, the last one stays.

    Raises UserError saying why, that the last good one is still there, and how to `go_on`.
    """
    try:
        with replacing(path) as part, part.open("wb") as file:
            torch.save(dict(state), file)
    except (OSError, RuntimeError) as error:
        kept = f"the last good one is kept in {path}" if path.is_file() else "there is none before"
        raise UserError(
            f"step {step}: the checkpoint could not be written ({str(error).splitlines()[0]}); "
            f"{kept}. Make room and go on with {go_on}."
        ) from error


def read_state(
    path: Path, parts: Sequence[str], fingerprint: Mapping[str, str], otherwise: str
) -> dict[str, Any]:
    """Read a state that has `parts` and belongs to the run with this fingerprint.

    Raises FileNotFoundError if there is none, and UserError if it is unreadable (saying what to do
    `otherwise`) or of another run.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        own, _ = state[FINGERPRINT].get, [state[key] for key in parts]
    except FileNotFoundError:
        raise
    except Exception as error:  # a broken file can make torch.load raise anything
        line = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f"{path}: not a readable checkpoint ({line}); {otherwise}.") from error
    for key, value in fingerprint.items():
        if own(key) != value:
            raise UserError(
                f"{path}: the checkpoint belongs to another {key} ({str(own(key))[:12]}, now "
                f"{value[:12]}); resume with what it was started with, or use another --out."
            )
    return state
