"""Parameters of which a process may hold only a part: FSDP2's, divided over their first dimension,
and BMTrain's, a piece of the flat values.

Everything here works the same on parameters that are whole.
"""

from __future__ import annotations

import torch
from torch import Tensor


def whole_shape(parameter: Tensor) -> torch.Size:
    """The shape of all processes' values together."""
    shape: torch.Size = getattr(parameter, "_original_shape", parameter.shape)
    return shape


def own(parameter: Tensor) -> Tensor:
    """This process's values of a parameter: the same memory, all of it or its part."""
    local = getattr(parameter, "to_local", None)
    found: Tensor = parameter.detach() if local is None else parameter.detach().to_local()  # type: ignore[attr-defined]
    return found


def own_part(parameter: Tensor, whole: Tensor) -> Tensor:
    """Of a whole tensor the part that this process holds of `parameter`, as a view."""
    if hasattr(parameter, "_original_shape"):
        start, end = parameter._start_partition, parameter._end_partition  # type: ignore[attr-defined]
        return whole.flatten()[start or 0 : end]  # None to 0 where this process has nothing
    mesh = getattr(parameter, "device_mesh", None)
    if mesh is None:
        return whole
    parts = whole.chunk(mesh.size(), dim=0)  # fewer than processes, if there are fewer rows
    rank = mesh.get_local_rank()
    return parts[rank] if rank < len(parts) else whole[:0]


@torch.no_grad()
def fill(parameter: Tensor, whole: Tensor) -> Tensor:
    """Write a whole tensor's values, or this process's part of them, into a parameter; return the
    values written, in the parameter's dtype."""
    values = own(parameter)
    values.copy_(own_part(parameter, whole))
    return values
