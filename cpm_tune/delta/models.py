"""OpenDelta's delta models, made to fit our backbones. Importing this module imports OpenDelta.

OpenDelta's own classes where they work, subclasses of its base where they do not. What differs:
modules are given by full name (`cpm_tune.delta.modules` has checked them); adapters are made at
once from the modules' widths, where OpenDelta sends dummy data through the backbone and swallows
what goes wrong. `cpm_tune.delta.own` is the way in without OpenDelta, to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cpm_tune.backbone.base import Backbone
from cpm_tune.delta.config import (
    AdapterConfig,
    CompacterConfig,
    LoraConfig,
    LowRankAdapterConfig,
    ModuleConfig,
    ParallelAdapterConfig,
)
from cpm_tune.delta.modules import check_sizes, matched_modules, matched_pairs
from cpm_tune.delta.opendelta_import import opendelta
from cpm_tune.delta.placing import PLAIN, Matrices, clear, device_of, fuse_lora, home

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


class _ByFullName:
    """Takes `modified_modules` as full names."""

    def find_key(self, key: str, target_list: list[str]) -> bool:
        return key in target_list


def _make(layer: Any, module: nn.Module, backbone: Backbone) -> nn.Module:
    """Give an adapter its weights, for the width of this module's output."""
    sizes = backbone.widths(module)
    assert sizes is not None  # it was matched
    layer.device = layer.init_device = home(module)
    layer.instantiate(torch.empty(1, 1, sizes[1], device=home(module)))
    made: nn.Module = layer.to(device_of(module))
    return made


class _MadeAtOnce(_ByFullName):
    """An adapter whose layers are made from widths, not by a first forward pass."""

    def new_module_like(self, module: nn.Module) -> nn.Module:
        layer = super().new_module_like(module)  # type: ignore[misc]
        return _make(layer, module, self.backbone_model)  # type: ignore[attr-defined]

    def _pseudo_data_to_instantiate(self, backbone: nn.Module) -> None:
        return


class _Lora(_ByFullName, LoraModel):  # type: ignore[misc]
    @property
    def matrices(self) -> Matrices:
        made: Matrices = self.__dict__.setdefault("_matrices", Matrices())
        return made

    def new_module_like(self, child_module: nn.Linear) -> nn.Module:
        layer: nn.Module = lora.LowRankLinear(
            child_module.in_features,
            child_module.out_features,
            torch.empty(0, device=home(child_module)),
            self.lora_r,
            self.lora_alpha,
            self.lora_dropout,
        ).to(device_of(child_module))
        self.delta_modules.append(layer)
        return layer

    def insert_parallel_module(self, module: nn.Linear, delta_module: Any, **named: Any) -> None:
        """As OpenDelta does, but frozen and low-rank product are one step."""
        super().insert_parallel_module(module, delta_module, **named)
        fuse_lora(module, delta_module, self.matrices, self.lora_dropout)


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


def _settings(config: ModuleConfig) -> dict[str, Any]:
    """The settings that OpenDelta's classes take, under their names."""
    return config.model_dump(exclude={"delta_type", "modified_modules", "exclude_modules"})


_THEIRS: dict[Any, Any] = {LoraConfig: _Lora, AdapterConfig: _Adapter, CompacterConfig: _Compacter}
_OURS: dict[Any, Any] = {
    LowRankAdapterConfig: _insert_low_rank_adapters,
    ParallelAdapterConfig: _insert_parallel_adapters,
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
        if type(config) in PLAIN:
            PLAIN[type(config)](model.insert_sequential_module, backbone, config)
        else:
            _OURS[type(config)](model, backbone, config)

    stop = None
    if isinstance(model, _Lora):
        stop = model.matrices.watch(backbone, model.delta_modules)

    def remove() -> None:
        if stop is not None:
            stop()
        model.detach(backbone, reset_state_dict=False)
        clear(backbone)

    return remove
