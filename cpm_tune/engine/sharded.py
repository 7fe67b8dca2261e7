"""The torch engine with the layers' frozen weights sharded over the processes (FSDP2), in device or
host memory.

Sharded are the weights of the layers, 97% of 10B. Embeddings, position bias and last norm are whole
in every process, because decoding and scoring use them outside the forward pass. So is the delta: a
few megabytes, with gradients that `TorchEngine` sums once per step; it is inserted after the
weights are sharded, so FSDP2 never sees it.

A forward pass gathers one layer after the other, so all processes have to take part. `join` keeps
them together if one has more to do than another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from cpm_tune.engine.pytorch import TorchEngine
from cpm_tune.engine.rank import RankInfo
from cpm_tune.errors import UserError


class ShardedEngine(TorchEngine):
    """`offload` keeps the shards in host memory; each layer is on the device while it is used."""

    def __init__(
        self,
        device: torch.device,
        precision: str,
        process: RankInfo,
        *,
        checkpointing: bool,
        offload: bool,
    ) -> None:
        super().__init__(device, precision, process, checkpointing)
        self.offload = offload
        if not dist.is_initialized():  # FSDP2 needs a group, even of one
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
        self._mesh = init_device_mesh(device.type, (self.world_size,))

    def materialise(self, model: Any) -> bool:
        policy = OffloadPolicy()
        if self.offload:
            policy = CPUOffloadPolicy(pin_memory=self.device.type == "cuda")
        encoder = model.encoder
        for module in (*encoder.layers, encoder):
            fully_shard(
                module,
                mesh=self._mesh,
                reshard_after_forward=True,
                offload_policy=policy,
                ignored_params=set(encoder.output_layernorm.parameters()),
            )
        home = torch.device("cpu") if self.offload else self.device
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None and not isinstance(parameter, DTensor):
                    values = torch.empty_like(parameter, device=self.device)
                    module._parameters[name] = nn.Parameter(values)
        encoder.to_empty(device=home)
        return True

    def prepare(self, model: Any) -> Any:
        for layer in model.encoder.layers:
            if not hasattr(layer, "unshard"):
                raise UserError("a backbone loaded whole cannot be sharded; load it again.")
        self._recompute_layers(model)
        for parameter in model.parameters():  # of the delta
            if not isinstance(parameter, DTensor):
                parameter.data = parameter.data.to(self.device)
        for layer in model.encoder.layers:
            # FSDP2 allocates at a layer's first use; tensors made in inference mode could not be
            # used in training.
            layer.unshard()
            layer.reshard()
        return model

    @contextlib.contextmanager
    def join(self, model: Any, *, backward: bool = False) -> Iterator[None]:
        if self.world_size == 1:
            yield
            return
        hook = model.encoder.register_forward_pre_hook(lambda *_: self._any(True) and None)
        try:
            yield
        finally:
            hook.remove()
        while self._any(False):
            self._empty_pass(model, backward)

    def _any(self, mine: bool) -> bool:
        """Whether any process makes a forward pass now; all processes call this together."""
        (working,) = self.reduce_sums([float(mine)])
        return working > 0

    def _empty_pass(self, model: Any, backward: bool) -> None:
        """Gather what the others gather, with a dummy token whose gradients are zero.

        FSDP2 gathers a layer in the backward pass if the layer's output has gradients, so the input
        has them if that of a real pass does.
        """
        shape = model.config
        weight = model.input_embedding.weight
        x = weight.new_zeros(1, 1, shape.dim_model)
        bias = weight.new_zeros(1, shape.num_heads, 1, 1)
        tables = (model.input_embedding, model.prompt_embedding, model.segment_embedding)
        x.requires_grad_(any(p.requires_grad for table in tables for p in table.parameters()))
        with torch.set_grad_enabled(backward), self.autocast():
            hidden = model.encoder(x, bias)
        if backward:
            (hidden.float().sum() * 0).backward()
