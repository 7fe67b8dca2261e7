"""An optimiser's state as a checkpoint has it: whole values, whatever part each process has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cpm_tune.backbone.storage.shards import local_part, whole


def whole_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimiser's state with all processes' values; they have to call this together."""
    saved = optimizer.state_dict()
    given: dict[int, dict[str, Any]] = saved["state"]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if not given or not any(hasattr(p, "_original_shape") for p in parameters):
        return saved
    known = next(iter(given.values()))  # a parameter without values here has no state here
    nothing = {k: v if _is_step(v) else v.new_zeros(0) for k, v in known.items()}
    state = {
        number: {
            name: value if _is_step(value) else whole(parameter, value)
            for name, value in given.get(number, nothing).items()
        }
        for number, parameter in enumerate(parameters)
    }
    return {**saved, "state": state}


def load_whole_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load a state of `whole_state`, in any number of processes."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {
        number: {
            name: value if _is_step(value) else local_part(parameters[number], value).clone()
            for name, value in values.items()
        }
        for number, values in saved["state"].items()
    }
    optimizer.load_state_dict({**saved, "state": state})


def _is_step(value: Any) -> bool:
    return not isinstance(value, Tensor) or value.dim() == 0
