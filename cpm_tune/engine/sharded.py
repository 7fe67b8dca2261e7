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

from cpm_tune.engine.pytorch import TorchEngine, layers_of
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
        layers = layers_of(model)
        inside = {parameter for layer in layers for parameter in layer.parameters()}
        whole = {parameter for parameter in model.parameters() if parameter not in inside}
        for module in (*layers, *self._trunks(model)):
            fully_shard(
                module,
                mesh=self._mesh,
                reshard_after_forward=True,
                offload_policy=policy,
                ignored_params=whole,
            )
        home = torch.device("cpu") if self.offload else self.device
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None and not isinstance(parameter, DTensor):
                    values = torch.empty_like(parameter, device=self.device)
                    module._parameters[name] = nn.Parameter(values)
        for layer in layers:
            layer.to_empty(device=home)
        model.sharded = True
        return True

    @staticmethod
    def _trunks(model: Any) -> list[nn.Module]:
        """The modules that own the stacks of layers, within the model."""
        stacks = {id(stack) for stack in model.layers}
        names = [name for name, module in model.named_modules() if id(module) in stacks]
        return [model.get_submodule(name.rpartition(".")[0]) for name in names if "." in name]

    def prepare(self, model: Any) -> Any:
        for layer in layers_of(model):
            if not hasattr(layer, "unshard"):
                raise UserError("a backbone loaded whole cannot be sharded; load it again.")
        self._recompute_layers(model)
        for parameter in model.parameters():  # of the delta
            if not isinstance(parameter, DTensor):
                parameter.data = parameter.data.to(self.device)
        for layer in layers_of(model):
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
        first = model.layers[0][0]  # in every pass
        hook = first.register_forward_pre_hook(lambda *_: self._any(True) and None, prepend=True)
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

        FSDP2 gathers a layer in the backward pass if the layer's output has gradients, as that of a
        real pass.
        """
        batch = model.dummy(torch.zeros(1, 1, dtype=torch.int64), 1).to(self.device)
        was_training = model.training
        model.eval()  # a soft prompt in training looks for its tokens
        with torch.set_grad_enabled(backward), self.autocast():
            total = sum(part.sum() for part in model.scores(batch))
        if backward:
            (total * 0).backward()
        model.train(was_training)
