"""OpenDelta's delta models, made to fit our backbones. Importing this module imports OpenDelta.

OpenDelta's own classes where they work, subclasses of its base where they do not. What differs:
modules are given by full name (`cpm_tune.delta.modules` has checked them); adapters are made at
once from the modules' widths, where OpenDelta sends dummy data through the backbone and swallows
what goes wrong; and all values are drawn in fp32 on the CPU, so that a seed means the same on every
device and in every precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn

from cpm_tune.backbone.base import Backbone
from cpm_tune.backbone.fused import autocast_dtype, cast_together, is_plain, low_rank_linear
from cpm_tune.delta.config import (
    AdapterConfig,
    BitFitConfig,
    CompacterConfig,
    LoraConfig,
    LowRankAdapterConfig,
    ModuleConfig,
    ParallelAdapterConfig,
    PrefixConfig,
    SoftPromptConfig,
)
from cpm_tune.delta.layers import (
    BiasLayer,
    BiasPadding,
    PrefixLayer,
    Reparameterization,
    ReparameterizedPrefixLayer,
    SoftPromptLayer,
)
from cpm_tune.delta.modules import check_sizes, matched_modules, matched_pairs, widths
from cpm_tune.delta.opendelta_import import opendelta
from cpm_tune.errors import UserError

opendelta()

from opendelta.basemodel import DeltaBase  # noqa: E402
from opendelta.delta_models import lora  # noqa: E402
from opendelta.delta_models.adapter import AdapterModel  # noqa: E402
from opendelta.delta_models.compacter import CompacterModel  # noqa: E402
from opendelta.delta_models.layers.activations import Activations  # noqa: E402
from opendelta.delta_models.layers.low_rank_linear import LowRankLinear  # noqa: E402
from opendelta.delta_models.lora import LoraModel  # noqa: E402
from opendelta.delta_models.low_rank_adapter import LowRankAdapter  # noqa: E402
from opendelta.delta_models.parallel_adapter import ParallelAdapterLayer  # noqa: E402


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _home(module: nn.Module) -> torch.device:
    """Where a layer for this module is made: the CPU, or nowhere for a backbone without values."""
    return torch.device("meta" if _device(module).type == "meta" else "cpu")


class _ByFullName:
    """Takes `modified_modules` as full names."""

    def find_key(self, key: str, target_list: list[str]) -> bool:
        return key in target_list


def _make(layer: Any, module: nn.Module, backbone: Backbone) -> nn.Module:
    """Give an adapter its weights, for the width of this module's output."""
    sizes = backbone.widths(module)
    assert sizes is not None  # it was matched
    layer.device = layer.init_device = _home(module)
    layer.instantiate(torch.empty(1, 1, sizes[1], device=_home(module)))
    made: nn.Module = layer.to(_device(module))
    return made


class _MadeAtOnce(_ByFullName):
    """An adapter whose layers are made from widths, not by a first forward pass."""

    def new_module_like(self, module: nn.Module) -> nn.Module:
        layer = super().new_module_like(module)  # type: ignore[misc]
        return _make(layer, module, self.backbone_model)  # type: ignore[attr-defined]

    def _pseudo_data_to_instantiate(self, backbone: nn.Module) -> None:
        return


class _Matrices:
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


class _Lora(_ByFullName, LoraModel):  # type: ignore[misc]
    @property
    def matrices(self) -> _Matrices:
        made: _Matrices = self.__dict__.setdefault("_matrices", _Matrices())
        return made

    def new_module_like(self, child_module: nn.Linear) -> nn.Module:
        layer: nn.Module = lora.LowRankLinear(
            child_module.in_features,
            child_module.out_features,
            torch.empty(0, device=_home(child_module)),
            self.lora_r,
            self.lora_alpha,
            self.lora_dropout,
        ).to(_device(child_module))
        self.delta_modules.append(layer)
        return layer

    def insert_parallel_module(self, module: nn.Linear, delta_module: Any, **named: Any) -> None:
        """As OpenDelta does, but frozen and low-rank product are one step."""
        super().insert_parallel_module(module, delta_module, **named)
        combined, matrices = module.forward, self.matrices

        @wraps(combined)  # OpenDelta looks for __wrapped__ when it takes the layer out
        def forward(x: Tensor) -> Tensor:
            if not is_plain(module.weight):
                return combined(x)
            down, up = matrices.of(delta_module)
            p = self.lora_dropout if delta_module.training else 0.0
            y = low_rank_linear(x, module.weight, down, up, delta_module.scaling, p)
            return y if module.bias is None else y + module.bias.to(y.dtype)

        vars(module)["forward"] = forward


class _Adapter(_MadeAtOnce, AdapterModel):  # type: ignore[misc]
    pass


class _Compacter(_MadeAtOnce, CompacterModel):  # type: ignore[misc]
    pass


class _MatrixProduct(LowRankLinear):  # type: ignore[misc]
    """OpenDelta multiplies the two factors elementwise, which is their product at rank 1 only."""

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.W_left @ self.W_right).to(x.dtype) + self.b.to(x.dtype)


class _LowRankAdapterLayer(LowRankAdapter):  # type: ignore[misc]
    def instantiate(self, hiddens: Tensor) -> None:
        width = hiddens.shape[-1]
        bottleneck = width // self.reduction_factor
        settings = {"rank": self.low_rank_rank, "w_init": self.low_rank_w_init}
        self.activation = Activations(self.non_linearity)
        with torch.device(self.device):
            self.down_sampler = _MatrixProduct(width, bottleneck, **settings)
            self.up_sampler = _MatrixProduct(bottleneck, width, **settings)
        self.instantiated = True


def _insert_low_rank_adapters(
    model: DeltaBase, backbone: Backbone, config: LowRankAdapterConfig
) -> None:
    for name in matched_modules(backbone, config):
        module = backbone.get_submodule(name)
        layer = _make(_LowRankAdapterLayer(**_settings(config)), module, backbone)
        model.insert_sequential_module(module, layer, "low_rank_adapter")


class _ParallelAdapterLayer(ParallelAdapterLayer):  # type: ignore[misc]
    """Starts at zero, as in the code of He et al. (2022): parallel adapters begin like LoRA.

    OpenDelta expects hidden states as the first argument by place; many models of transformers give
    them by name.
    """

    def pre_forward(self, *given: Any, **named: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        super().pre_forward(*(given or (named["hidden_states"],)))
        return given, named

    def instantiate(self, hiddens: Tensor) -> None:
        super().instantiate(hiddens)
        nn.init.zeros_(self.modulelist.up_proj.weight)

    def post_forward(self, output: Any) -> Any:
        output = super().post_forward(output)
        self.adapter_output = None  # not kept beyond the forward pass
        return output


def _insert_parallel_adapters(
    model: DeltaBase, backbone: Backbone, config: ParallelAdapterConfig
) -> None:
    """OpenDelta counts modules as it meets them and so pairs wrongly; here pairs are given."""
    for names in matched_pairs(backbone, config):
        start, end = map(backbone.get_submodule, names)
        layer = _make(_ParallelAdapterLayer(**_settings(config)), end, backbone)
        backbone.adds_input_of(names[0])
        if start is end:
            model.insert_sequential_module(start, layer, "parallel_adapter")
            continue
        model.insert_module(start, "before", layer, "parallel_adapter")
        model.insert_module(end, "after", layer, "parallel_adapter")


def _insert_biases(model: DeltaBase, backbone: Backbone, config: BitFitConfig) -> None:
    """OpenDelta's BitFit fails on a linear layer without bias; CPM-Ant has no other."""
    for name in matched_modules(backbone, config):
        module = backbone.get_submodule(name)
        layer = BiasLayer(widths(backbone, name)[1], _device(module))
        model.insert_sequential_module(module, layer, "bitfit")


def _insert_prefixes(model: DeltaBase, backbone: Backbone, config: PrefixConfig) -> None:
    """OpenDelta's prefix knows a few Hugging Face models; here the `extend` of attention modules is
    replaced, which adds keys and values of `key_width` values to their own."""
    names, n, pad = matched_modules(backbone, config), config.prefix_token_num, BiasPadding()
    device = _home(backbone)
    if config.reparameterize:
        shared = Reparameterization(n, config.embed_dim, config.mid_dim, device)
        backbone.reparams = shared.to(_device(backbone))
    for attention in map(backbone.get_submodule, names):
        width = attention.key_width
        assert isinstance(width, int)
        layer = (
            ReparameterizedPrefixLayer(shared, width, device, pad)
            if config.reparameterize
            else PrefixLayer(n, width, device, pad)
        )
        attention.prefix = layer.to(_device(attention))
        vars(attention)["extend"] = layer.extend


def _insert_soft_prompt(model: DeltaBase, backbone: Backbone, config: SoftPromptConfig) -> None:
    """OpenDelta's soft prompt precedes all input; here its tokens have ids and places."""
    place, all_seen = backbone.prompt_table(), config.prompt_sees_text and config.text_sees_prompt
    if place is None:
        raise UserError(
            "a soft prompt has no place in this family of models; choose another delta."
        )
    if not (all_seen or backbone.hides_pairs):
        raise UserError(
            "delta.prompt_sees_text and delta.text_sees_prompt cannot be false in this family of "
            "models, whose attention hides no pair of positions."
        )
    table = place.embedding
    layer = SoftPromptLayer(config, place.first, table.embedding_dim, place.unscaled, _home(table))
    model.insert_sequential_module(table, layer.to(_device(table)), "soft_prompt")
    if not all_seen:
        vars(backbone)["hidden_pairs"] = partial(
            layer.hidden_pairs,
            first_free=place.first_free,
            prompt_sees_text=config.prompt_sees_text,
        )


def _settings(config: ModuleConfig) -> dict[str, Any]:
    """The settings that OpenDelta's classes take, under their names."""
    return config.model_dump(exclude={"delta_type", "modified_modules", "exclude_modules"})


_PARTS = ("prefix", "reparams")  # layers that OpenDelta does not know of
_TRACES = (
    "forward",
    "extend",
    "hidden_pairs",
    "last_layer_at_targets",
    "_delta_infos",
    "_replicate_for_data_parallel",
)
_THEIRS: dict[Any, Any] = {LoraConfig: _Lora, AdapterConfig: _Adapter, CompacterConfig: _Compacter}
_OURS: dict[Any, Any] = {
    LowRankAdapterConfig: _insert_low_rank_adapters,
    ParallelAdapterConfig: _insert_parallel_adapters,
    BitFitConfig: _insert_biases,
    PrefixConfig: _insert_prefixes,
    SoftPromptConfig: _insert_soft_prompt,
}


def insert_model(backbone: Backbone, config: Any) -> Callable[[], None]:
    """Insert a delta's layers, values drawn from torch's CPU generator; return what removes them.

    Raises UserError for what does not fit the backbone, before anything is changed.
    """
    if isinstance(config, ModuleConfig):
        names = matched_modules(backbone, config)
        check_sizes(backbone, config, names)
    if type(config) in _THEIRS:
        model = _THEIRS[type(config)](
            backbone, modified_modules=names, backend="hf", **_settings(config)
        )
    else:
        model = DeltaBase(backbone, modified_modules=[])
        _OURS[type(config)](model, backbone, config)

    stop = None
    if isinstance(model, _Lora):
        stop = model.matrices.watch(backbone, model.delta_modules)

    def remove() -> None:
        if stop is not None:
            stop()
        model.detach(backbone, reset_state_dict=False)
        for module in backbone.modules():
            for part in _PARTS:
                module._modules.pop(part, None)
            for trace in _TRACES:
                vars(module).pop(trace, None)

    return remove
