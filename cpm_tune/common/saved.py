"""A training checkpoint: one file, complete or absent, of tensors and plain values only."""

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
    """Write a safetensors file with the permissions of any new file (safetensors sets 0600)."""
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode & 0o777
    save_file(dict(state), path, metadata=dict(metadata) if metadata else None)
    path.chmod(mode)


def write_state(path: Path, state: Mapping[str, Any], step: int, go_on: str) -> None:
    """Write a checkpoint in place of the last one, atomically.

    Raises UserError with the reason, where the last good checkpoint is, and how to resume
    (`go_on`: a command or option).
    """
    try:
        with replacing(path) as part, part.open("wb") as file:
            torch.save(dict(state), file)
    except (OSError, RuntimeError) as error:
        kept = f"the last good one is kept in {path}" if path.is_file() else "it would be the first"
        raise UserError(
            f"step {step}: the checkpoint could not be written ({str(error).splitlines()[0]}); "
            f"{kept}. Make room and resume with {go_on}."
        ) from error


def read_state(
    path: Path, parts: Sequence[str], fingerprint: Mapping[str, str], otherwise: str
) -> dict[str, Any]:
    """Read a checkpoint that has `parts` and belongs to the run with this fingerprint.

    Raises FileNotFoundError if there is none, and UserError if it cannot be read (`otherwise` says
    what to do) or belongs to another run.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        actual, _ = state[FINGERPRINT].get, [state[key] for key in parts]
    except FileNotFoundError:
        raise
    except Exception as error:  # a broken file can make torch.load raise anything
        line = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f"{path}: not a readable checkpoint ({line}); {otherwise}.") from error
    for key, value in fingerprint.items():
        if actual(key) != value:
            raise UserError(
                f"{path}: the checkpoint belongs to another {key} ({str(actual(key))[:12]}, now "
                f"{value[:12]}); resume with what it was started with, or use another --out."
            )
    return state
