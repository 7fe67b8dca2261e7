"""The torch engine with the layers' frozen weights in host memory, for one process (`--offload`).

While a layer computes, the next one is copied to the device on a stream of its own, from pinned
memory; so two layers are on the device at a time. FSDP2, which shards over several processes, would
copy on the stream that computes if there is only one.

A frozen weight keeps its storage on the device, which is freed and allocated again: what autograd
saved of it in the forward pass has the values back in the backward pass. Which layer follows which,
forward and backward, is learnt from the passes before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cpm_tune.engine.pytorch import TorchEngine, layers_of

FORWARD, BACKWARD, SCORING = range(3)


class OffloadedEngine(TorchEngine):
    """Embeddings, position bias, last norm and the delta are on the device, the layers' frozen
    weights come and go."""

    def materialise(self, model: Any) -> bool:
        pinned = self.device.type == "cuda"
        inside = {p for layer in layers_of(model) for p in layer.parameters()}
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is None or not parameter.is_meta:
                    continue
                if parameter in inside:
                    values = torch.empty_like(parameter, device="cpu", pin_memory=pinned)
                else:
                    values = torch.empty_like(parameter, device=self.device)
                module._parameters[name] = nn.Parameter(values, parameter.requires_grad)
        return True

    def prepare(self, model: Any) -> Any:
        self._recompute_layers(model)
        layers = layers_of(model)
        weights = [_frozen(layer) for layer in layers]
        inside = {p for layer in weights for p in layer}
        for module in model.modules():
            for parameter in module._parameters.values():
                if parameter is not None and parameter not in inside:
                    parameter.data = parameter.data.to(self.device)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = buffer.to(self.device)
        transfer = Transfer(
            [[Weight.take(p, self.device) for p in w] for w in weights], self.device
        )
        for place, layer in enumerate(layers):
            transfer.attach(layer, place)
        return model


def _frozen(layer: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in layer.parameters() if not parameter.requires_grad]


@dataclass(frozen=True)
class Weight:
    """`host`: the values; `there`: the storage of the parameter on the device, empty or not."""

    host: torch.UntypedStorage
    there: torch.UntypedStorage

    @classmethod
    def take(cls, parameter: nn.Parameter, device: torch.device) -> Weight:
        """Leave a parameter on the device without memory; `storage.shards` reads the host's."""
        host = parameter.data.contiguous()
        vars(parameter)["host_values"] = host
        parameter.data = torch.empty_like(host, device=device)
        storage = parameter.data.untyped_storage()
        storage.resize_(0)
        return cls(host.untyped_storage(), storage)

    def copy(self) -> None:
        self.there.resize_(self.host.nbytes())
        self.there.copy_(self.host, non_blocking=True)  # no new version for autograd

    def free(self) -> None:
        self.there.resize_(0)


class Transfer:
    """Brings layers to the device and takes them away. `copied` lists (layer, direction, whether it
    was ahead of its use), for tests."""

    def __init__(self, layers: Sequence[Sequence[Weight]], device: torch.device) -> None:
        self._layers, self._device = layers, device
        self._copies: Any = None
        if device.type == "cuda":
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._here: dict[int, Any] = {}  # the event after a layer's copy
        self._now, self._following = -1, dict[tuple[int, int], int]()
        self.copied: list[tuple[int, int, bool]] = []

    def attach(self, layer: nn.Module, place: int) -> None:
        """Let a layer's weights be there when it computes, forward and backward."""

        def before(*_: Any) -> None:
            self._use(place, FORWARD if torch.is_grad_enabled() else SCORING)

        def back(_: Tensor) -> None:
            self._use(place, BACKWARD)

        def after(_: Any, __: Any, output: Any) -> None:
            for tensor in output if isinstance(output, tuple | list) else (output,):
                if isinstance(tensor, Tensor) and tensor.requires_grad:
                    tensor.register_hook(back)  # type: ignore[no-untyped-call]

        layer.register_forward_pre_hook(before, prepend=True)
        layer.register_forward_hook(after)

    def _use(self, place: int, direction: int) -> None:
        """A layer is about to compute; all work of those before has been given to the device."""
        if self._now == place:  # passes turn round at the first and at the last one
            self._ahead(place, direction)
            return
        if self._now >= 0:
            self._following[self._now, direction] = place
            self._release(self._now)
        for other in [n for n in self._here if n != place]:  # another one was expected
            self._release(other)
        self._bring(place, direction, ahead=False)
        if (event := self._here[place]) is not None:
            torch.cuda.current_stream(self._device).wait_event(event)
        self._now = place
        self._ahead(place, direction)

    def _ahead(self, place: int, direction: int) -> None:
        following = self._following.get((place, direction))
        if following is not None:
            self._bring(following, direction, ahead=True)

    def _bring(self, place: int, direction: int, *, ahead: bool) -> None:
        if place in self._here:
            return
        self.copied.append((place, direction, ahead))
        with contextlib.nullcontext() if self._copies is None else torch.cuda.stream(self._copies):
            for weight in self._layers[place]:
                weight.copy()
        self._here[place] = None if self._copies is None else self._copies.record_event()

    def _release(self, place: int) -> None:
        """Free a layer's memory, for copies that begin after what was computed with it."""
        if self._here.pop(place, None) is not None and self._copies is not None:
            self._copies.wait_stream(torch.cuda.current_stream(self._device))
        for weight in self._layers[place]:
            weight.free()
