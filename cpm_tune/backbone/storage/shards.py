"""Parameters of which a process may have only a part: FSDP2's, sharded over their first dimension,
and BMTrain's, a piece of the flat values; or that are on the device only while they are used.

Everything here works the same on parameters that are whole; `stored` also on quantized ones. All
processes have to call together what returns whole values.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


def whole_shape(parameter: Tensor) -> torch.Size:
    """The shape of all processes' values together."""
    shape: torch.Size = getattr(parameter, "_original_shape", parameter.shape)
    return shape


def local_values(parameter: Tensor) -> Tensor:
    """This process's values of a parameter: the same memory, all of it or its part; `host_values`,
    if an engine keeps them there."""
    if (host := getattr(parameter, "host_values", None)) is not None:
        return host
    local = getattr(parameter, "to_local", None)
    values: Tensor = parameter.detach() if local is None else parameter.detach().to_local()  # type: ignore[attr-defined]
    return values


def stored(parameter: Tensor) -> list[Tensor]:
    """The plain tensors of this process's values: one, or several of a quantized weight."""
    values = local_values(parameter)
    flatten = getattr(values, "__tensor_flatten__", None)
    return [values] if flatten is None else [getattr(values, name) for name in flatten()[0]]


def local_part(parameter: Tensor, whole: Tensor) -> Tensor:
    """The part of a whole tensor that this process has of `parameter`, as a view."""
    if hasattr(parameter, "_original_shape"):
        start, end = parameter._start_partition, parameter._end_partition  # type: ignore[attr-defined]
        return whole.flatten()[start or 0 : end]  # None to 0 where this process has nothing
    mesh = getattr(parameter, "device_mesh", None)
    if mesh is None:
        return whole
    parts = whole.chunk(mesh.size(), dim=0)  # fewer than processes, if there are fewer rows
    rank = mesh.get_local_rank()
    return parts[rank] if rank < len(parts) else whole[:0]


def allocate(model: nn.Module, device: torch.device | str) -> None:
    """Give the parameters of a model on the meta device memory on another; buffers stay there."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                values = torch.empty_like(parameter, device=device)
                module._parameters[name] = nn.Parameter(values, parameter.requires_grad)


@torch.no_grad()
def fill(parameter: Tensor, whole: Tensor) -> Tensor:
    """Write a whole tensor's values, or this process's part of them, into a parameter; return the
    values written, in the parameter's dtype."""
    values = local_values(parameter)
    values.copy_(local_part(parameter, whole))
    return values


def whole(parameter: Tensor, values: Tensor | None = None) -> Tensor:
    """A copy on the CPU of all processes' values of a parameter, or of `values` sharded like it."""
    values = local_values(parameter) if values is None else values
    if not hasattr(parameter, "_original_shape"):
        return values.detach().to("cpu", copy=True)
    shape = whole_shape(parameter)
    flat = torch.zeros(shape.numel(), dtype=values.dtype)
    local_part(parameter, flat).copy_(values)
    if dist.is_initialized():  # every value is in one process, the others add no bits to it
        dist.all_reduce(flat.view({2: torch.int16, 4: torch.int32}[flat.element_size()]))
    return flat.view(shape)
