"""Opens a backbone of any family: weights read one at a time, or drawn at random."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpm_tune.backbone.protocol import BackboneConfig, Materialise
from cpm_tune.backbone.quantize import quantize_int8
from cpm_tune.backbone.storage.finite import check_finite
from cpm_tune.backbone.storage.fit import check_fit
from cpm_tune.backbone.storage.shards import allocate, fill
from cpm_tune.errors import UserError


def read_backbone(
    config: BackboneConfig,
    tensors: Iterable[tuple[str, Tensor]],
    dtype: torch.dtype,
    path: Path,
    materialise: Materialise | None = None,
    device: torch.device | str = "cpu",
) -> Any:
    """Return the Backbone with these weights, by name, in `dtype` on a device; buffers stay on the
    CPU, where they are computed.

    Each tensor is moved as it is read, so that several processes, each with a GPU, do not have as
    many backbones in host memory. If `materialise` is given and true, it has made the model's
    parameters, of which every process may have a part: tensors are then read one at a time and only
    that part is kept. `path` is for messages: raises UserError for what is missing, unexpected, of
    another shape or not finite.
    """
    model, state = config.skeleton().to(dtype), dict[str, Tensor]()
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given: dict[str, tuple[int, ...]] = {}
    in_parts = materialise is not None and materialise(model)
    parameters = dict(model.named_parameters()) if in_parts else {}
    for name, whole in tensors:
        given[name] = tuple(whole.shape)
        if given[name] != expected.get(name):
            continue
        if in_parts:
            state[name] = fill(parameters[name], whole)
        else:
            state[name] = whole.to(device).to(dtype)
        check_finite(path, name, state[name])
    check_fit(path, given, expected)
    if not in_parts:
        model.load_state_dict(state, strict=True, assign=True)
    model.fill_buffers()
    return model


def random_backbone(
    config: BackboneConfig,
    seed: int,
    dtype: torch.dtype,
    materialise: Materialise | None = None,
    device: torch.device | str = "cpu",
) -> Any:
    """Return a Backbone of that shape with random weights on a device: the control for a trained
    one. They are drawn on the CPU, one tensor at a time."""
    model = config.skeleton().to(dtype)
    if materialise is None or not materialise(model):
        if torch.device(device).type == "cpu":
            model.to_empty(device="cpu")
        else:
            allocate(model, device)
    model.fill_buffers()
    return model.init_weights(seed)


def open_whole(
    config: BackboneConfig,
    tensors: Iterable[tuple[str, Tensor]],
    dtype: torch.dtype,
    path: Path,
    *,
    random_seed: int | None = None,
    quantize: str | None = None,
    limit: int | None = None,
    device: torch.device | str = "cpu",
    materialise: Materialise | None = None,
) -> Any:
    """`BackboneFolder.open` for a family whose backbones are in memory as a whole."""
    if limit is not None:
        raise UserError(
            f"{path}: models of the family {config.family} cannot be read in parts; omit the "
            "memory limit."
        )
    # 8-bit weights are made on the CPU: a device may have room for them alone.
    home = "cpu" if quantize else device
    if random_seed is not None:
        model = random_backbone(config, random_seed, dtype, materialise, home)
    else:
        model = read_backbone(config, tensors, dtype, path, materialise, home)
    return quantize_int8(model) if quantize else model
