"""Weights have to be numbers."""

from __future__ import annotations

from pathlib import Path

import torch

from cpm_tune.errors import UserError


def check_finite(path: Path, name: str, values: torch.Tensor) -> None:
    """Raise UserError if a weight contains NaN or infinity."""
    if not is_finite(values):
        raise UserError(f"{path}: tensor {name} is not finite in {values.dtype}.")


def is_finite(values: torch.Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    ends = values.aminmax() if values.numel() else ()  # 50 times as fast as isfinite in bf16
    return all(bool(end.isfinite()) for end in ends)
