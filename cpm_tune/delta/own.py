"""Our own layers for a delta, where OpenDelta is not installed: plain torch.

Names, values, gradients and files equal those of `cpm_tune.delta.models` in every bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpm_tune.backbone.base import Backbone
from cpm_tune.delta.config import AdapterConfig, LoraConfig, ModuleConfig
from cpm_tune.delta.modules import check_sizes, matched_modules, widths
from cpm_tune.delta.placing import PLAIN, Matrices, clear, device_of, fuse_lora, home


def _gelu_new(x: Tensor) -> Tensor:
    """The tanh form of GELU (Hendrycks and Gimpel, 2016), term by term as OpenDelta has it."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "swish": lambda x: x * torch.sigmoid(x),
    "gelu_new": _gelu_new,
    "gelu_orig": F.gelu,
    "leakyrelu": F.leaky_relu,
}


class LoraLayer(nn.Module):
    """(lora_alpha / lora_r) B A x; A (lora_r, in), B (out, lora_r). Hu et al. (2021)."""

    def __init__(self, module: nn.Linear, config: LoraConfig) -> None:
        super().__init__()
        device = home(module)
        self.lora_A = nn.Parameter(torch.zeros(config.lora_r, module.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(module.out_features, config.lora_r, device=device))
        self.scaling = config.lora_alpha / config.lora_r
        self.dropout = nn.Dropout(config.lora_dropout)
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        product: Tensor = self.dropout(x) @ self.lora_A.T @ self.lora_B.T
        return product * self.scaling


class _Activation(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.function = _ACTIVATIONS[name]

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class AdapterLayer(nn.Module):
    """h + up(f(down(h))) on a module's output h (..., width), or on the first of several outputs.

    Houlsby et al. (2019).
    """

    def __init__(self, width: int, config: AdapterConfig, device: torch.device) -> None:
        super().__init__()
        self.modulelist = nn.Sequential()
        down = nn.Linear(width, config.bottleneck_dim, device=device)
        up = nn.Linear(config.bottleneck_dim, width, device=device)
        self.modulelist.add_module("down_proj", down)
        self.modulelist.add_module("non_linear", _Activation(config.non_linearity))
        self.modulelist.add_module("up_proj", up)
        for linear in (down, up):
            nn.init.normal_(linear.weight, std=0.01)
            nn.init.zeros_(linear.bias)

    def post_forward(self, output: Any) -> Any:
        """The output with the adapter's product added."""
        hidden = output[0] if isinstance(output, tuple) else output
        changed = self.modulelist(hidden) + hidden
        return (changed, *output[1:]) if isinstance(output, tuple) else changed


class _Layers:
    """Puts layers into modules, and takes them out."""

    def __init__(self) -> None:
        self._placed = list[tuple[nn.Module, str]]()

    def place(self, module: nn.Module, layer: Any, name: str) -> None:
        """Put a layer before a module (`pre_forward`), after it (`post_forward`), or both."""
        inner = self._keep(module, layer, name)

        @wraps(inner)
        def forward(*given: Any, **named: Any) -> Any:
            if hasattr(layer, "pre_forward"):
                given, named = layer.pre_forward(*given, **named)
            return layer.post_forward(inner(*given, **named))

        vars(module)["forward"] = forward

    def add(self, module: nn.Module, layer: nn.Module, name: str) -> None:
        """Add a layer's output to the module's, for the same input."""
        inner = self._keep(module, layer, name)

        @wraps(inner)
        def forward(x: Tensor) -> Tensor:
            total: Tensor = inner(x) + layer(x)
            return total

        vars(module)["forward"] = forward

    def remove(self) -> None:
        for module, name in self._placed:
            delattr(module, name)

    def _keep(self, module: nn.Module, layer: nn.Module, name: str) -> Callable[..., Any]:
        setattr(module, name, layer)
        self._placed.append((module, name))
        return module.forward


def _insert_lora(layers: _Layers, backbone: Backbone, config: LoraConfig) -> Callable[[], None]:
    matrices, added = Matrices(), []
    for module in map(backbone.get_submodule, matched_modules(backbone, config)):
        assert isinstance(module, nn.Linear)  # it was matched
        layer = LoraLayer(module, config).to(device_of(module))
        layers.add(module, layer, "lora")
        fuse_lora(module, layer, matrices, config.lora_dropout)
        added.append(layer)
    return matrices.watch(backbone, added)


def _insert_adapters(layers: _Layers, backbone: Backbone, config: AdapterConfig) -> None:
    for name in matched_modules(backbone, config):
        module = backbone.get_submodule(name)
        layer = AdapterLayer(widths(backbone, name)[1], config, home(module))
        layers.place(module, layer.to(device_of(module)), "adapter")


KINDS = (LoraConfig, AdapterConfig, *PLAIN)


def insert_model(backbone: Backbone, config: Any) -> Callable[[], None]:
    """`cpm_tune.delta.models.insert_model`, for the configs of `KINDS`."""
    if isinstance(config, ModuleConfig):
        check_sizes(backbone, config, matched_modules(backbone, config))
    layers, stop = _Layers(), None
    if isinstance(config, LoraConfig):
        stop = _insert_lora(layers, backbone, config)
    elif isinstance(config, AdapterConfig):
        _insert_adapters(layers, backbone, config)
    else:
        PLAIN[type(config)](layers.place, backbone, config)

    def remove() -> None:
        if stop is not None:
            stop()
        layers.remove()
        clear(backbone)

    return remove
