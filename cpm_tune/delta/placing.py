"""Ways to put a delta's layers into a backbone that need no OpenDelta, shared by both ways in.

`Place` puts one layer before and after one module: OpenDelta's `insert_sequential_module`, or ours.
All values are drawn in fp32 on the CPU, so that a seed means the same on every device and in every
precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn

from cpm_tune.backbone.base import Backbone
from cpm_tune.backbone.fused import autocast_dtype, cast_together, is_plain, low_rank_linear
from cpm_tune.delta.config import BitFitConfig, PrefixConfig, SoftPromptConfig
from cpm_tune.delta.layers import (
    BiasLayer,
    BiasPadding,
    PrefixLayer,
    Reparameterization,
    ReparameterizedPrefixLayer,
    SoftPromptLayer,
)
from cpm_tune.delta.modules import matched_modules, widths
from cpm_tune.errors import UserError

Place = Callable[[nn.Module, nn.Module, str], None]  # module, layer, the layer's name in it


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's parameters."""
    return next(module.parameters()).device


def home(module: nn.Module) -> torch.device:
    """Where a layer for this module is made: the CPU, or nowhere for a backbone without values."""
    return torch.device("meta" if device_of(module).type == "meta" else "cpu")


class Matrices:
    """LoRA's matrices in the dtype of a forward pass: cast together when it begins."""

    def __init__(self) -> None:
        self._layers = list[Any]()
        self._cast = dict[int, tuple[Tensor, Tensor]]()

    def watch(self, backbone: Backbone, layers: Sequence[Any]) -> Callable[[], None]:
        """Cast these layers' matrices in every pass of the backbone; return what ends that."""
        self._layers = list(layers)
        begin = backbone.register_forward_pre_hook(self._begin)
        end = backbone.register_forward_hook(self._end, always_call=True)

        def stop() -> None:
            begin.remove()
            end.remove()

        return stop

    def of(self, layer: Any) -> tuple[Tensor, Tensor]:
        """A layer's lora_A and lora_B. Outside of a pass, as when activations are recomputed, they
        are fp32."""
        return self._cast.get(id(layer)) or (layer.lora_A, layer.lora_B)

    def _begin(self, backbone: nn.Module, _: Any) -> None:
        dtype = autocast_dtype(next(backbone.parameters()))
        values = [value for layer in self._layers for value in (layer.lora_A, layer.lora_B)]
        if all(value.dtype == torch.float32 != dtype for value in values):
            cast = iter(cast_together(values, dtype))
            self._cast = {id(layer): (next(cast), next(cast)) for layer in self._layers}

    def _end(self, *_: Any) -> None:
        self._cast = {}


def fuse_lora(module: nn.Linear, layer: Any, matrices: Matrices, dropout: float) -> None:
    """Make a linear layer's forward, which adds a LoRA layer's output, one step for both.

    The two steps stay for weights that are not plain values, such as 8-bit ones.
    """
    separate = module.forward

    @wraps(separate)  # OpenDelta looks for __wrapped__ when it takes the layer out
    def forward(x: Tensor) -> Tensor:
        if not is_plain(module.weight):
            return separate(x)
        down, up = matrices.of(layer)
        p = dropout if layer.training else 0.0
        y = low_rank_linear(x, module.weight, down, up, layer.scaling, p)
        return y if module.bias is None else y + module.bias.to(y.dtype)

    vars(module)["forward"] = forward


def insert_biases(place: Place, backbone: Backbone, config: BitFitConfig) -> None:
    """OpenDelta's BitFit fails on a linear layer without bias; CPM-Ant has no other."""
    for name in matched_modules(backbone, config):
        module = backbone.get_submodule(name)
        layer = BiasLayer(widths(backbone, name)[1], device_of(module))
        place(module, layer, "bitfit")


def insert_prefixes(place: Place, backbone: Backbone, config: PrefixConfig) -> None:
    """OpenDelta's prefix knows a few Hugging Face models; here the `extend` of attention modules is
    replaced, which adds keys and values of `key_width` values to their own."""
    names, n, pad = matched_modules(backbone, config), config.prefix_token_num, BiasPadding()
    device = home(backbone)
    if config.reparameterize:
        shared = Reparameterization(n, config.embed_dim, config.mid_dim, device)
        backbone.reparams = shared.to(device_of(backbone))
    for attention in map(backbone.get_submodule, names):
        width = attention.key_width
        assert isinstance(width, int)
        layer = (
            ReparameterizedPrefixLayer(shared, width, device, pad)
            if config.reparameterize
            else PrefixLayer(n, width, device, pad)
        )
        attention.prefix = layer.to(device_of(attention))
        vars(attention)["extend"] = layer.extend


def insert_soft_prompt(place: Place, backbone: Backbone, config: SoftPromptConfig) -> None:
    """OpenDelta's soft prompt precedes all input; here its tokens have ids and places."""
    prompts, all_seen = backbone.prompt_table(), config.prompt_sees_text and config.text_sees_prompt
    if prompts is None:
        raise UserError(
            "a soft prompt has no place in this family of models; choose another delta."
        )
    if not (all_seen or backbone.hides_pairs):
        raise UserError(
            "delta.prompt_sees_text and delta.text_sees_prompt cannot be false in this family of "
            "models, whose attention hides no pair of positions."
        )
    table = prompts.embedding
    layer = SoftPromptLayer(
        config, prompts.first, table.embedding_dim, prompts.unscaled, home(table)
    )
    place(table, layer.to(device_of(table)), "soft_prompt")
    if not all_seen:
        vars(backbone)["hidden_pairs"] = partial(
            layer.hidden_pairs,
            first_free=prompts.first_free,
            prompt_sees_text=config.prompt_sees_text,
        )


PLAIN: dict[Any, Callable[[Place, Backbone, Any], None]] = {
    BitFitConfig: insert_biases,
    PrefixConfig: insert_prefixes,
    SoftPromptConfig: insert_soft_prompt,
}
_PARTS = ("prefix", "reparams")  # layers that no module was wrapped for
_TRACES = (
    "forward",
    "extend",
    "hidden_pairs",
    "last_layer_at_targets",
    "_delta_infos",
    "_replicate_for_data_parallel",
)


def clear(backbone: Backbone) -> None:
    """Remove what insertion left on a backbone's modules."""
    for module in backbone.modules():
        for part in _PARTS:
            module._modules.pop(part, None)
        for trace in _TRACES:
            vars(module).pop(trace, None)
