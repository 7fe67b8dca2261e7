"""Reads a delta's two files, a JSON object beside tensors, whoever wrote them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpm_tune.backbone.checkpoint import is_finite
from cpm_tune.common.reading import read_json
from cpm_tune.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


ABOUT = "cpm_tune"  # the key of our description in a file's header


def read_about(weights: Path) -> Any:
    """What our own file of tensors says about itself; None if another program wrote it."""
    from safetensors import safe_open

    with safe_open(weights, framework="pt") as file:
        said = (file.metadata() or {}).get(ABOUT)
    try:
        return None if said is None else json.loads(said)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{weights}: its header is broken ({error}).") from error


def read_stored(
    config: Path, weights: Path, keys: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the object in `config`, which has all `keys`, and the tensors in `weights` by name.

    Raises UserError for a file that is absent or broken, and for tensors that are not of finite
    floating-point numbers.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for file in (config, weights):
        if not file.is_file():
            raise UserError(
                f"{file.parent}: no delta that can be read, {file.name} is missing; give a run's "
                "folder, a saved delta's, or PEFT's."
            )
    try:
        values = read_json(config)
    except (OSError, ValueError) as error:
        raise UserError(f"{config}: cannot be read as JSON ({error}).") from error
    if not isinstance(values, dict) or (absent := [key for key in keys if key not in values]):
        said = f"has no '{absent[0]}'" if isinstance(values, dict) else "is no object"
        raise UserError(f"{config}: {said}; expected an object with {', '.join(keys)}.")
    try:
        tensors = load_file(weights)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{weights}: cannot be read as safetensors ({error}).") from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise UserError(f"{weights}: {name} is {tensor.dtype}, expected floating point.")
        if not is_finite(tensor):
            raise UserError(f"{weights}: {name} holds NaN or inf; this delta is broken.")
    return values, tensors
