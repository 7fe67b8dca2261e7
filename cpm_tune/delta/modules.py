"""Which modules of a backbone a delta modifies. Wrong wiring is refused here.

Names are matched by OpenDelta's rule: `modified_modules` are whole endings of a module's name, or
regular expressions for them (`cpm_tune.delta.names`), `exclude_modules` are beginnings.
"""

from __future__ import annotations

from torch import nn

from cpm_tune.backbone.base import Backbone
from cpm_tune.delta.config import (
    AdapterConfig,
    BitFitConfig,
    CompacterConfig,
    LoraConfig,
    LowRankAdapterConfig,
    ModuleConfig,
    ParallelAdapterConfig,
    PrefixConfig,
)
from cpm_tune.delta.names import REGULAR, ends
from cpm_tune.errors import UserError, did_you_mean


def _takes(backbone: Backbone, config: ModuleConfig, module: nn.Module) -> bool:
    """Whether a delta of this kind can modify a module."""
    match config:
        case LoraConfig():
            return isinstance(module, nn.Linear)
        case PrefixConfig():
            return hasattr(module, "key_width")
        case BitFitConfig():  # a linear layer or a norm
            return backbone.widths(module) is not None and not any(module.children())
    return backbone.widths(module) is not None


def widths(backbone: Backbone, name: str) -> tuple[int, int]:
    """Sizes of the last dimension of a module's input and output."""
    sizes = backbone.widths(backbone.get_submodule(name))
    assert sizes is not None  # as `matched_modules` has found
    return sizes


def matched_modules(backbone: Backbone, config: ModuleConfig) -> list[str]:
    """Full names of the modules that a delta modifies, in the backbone's order.

    Raises UserError for a name that matches nothing, or a module that the delta cannot modify.
    """
    modules = dict(backbone.named_modules())
    kind = type(config).model_fields["delta_type"].default
    takes = {name for name, module in modules.items() if _takes(backbone, config, module)}
    fitting = {name.rsplit(".", 1)[-1] for name in takes}
    for ending in config.modified_modules:
        if not any(ends(name, ending) for name in modules):
            hint = "" if ending.startswith(REGULAR) else did_you_mean(ending, fitting)
            raise UserError(
                f"delta.modified_modules: no module of the backbone is named '{ending}'.{hint}"
            )
    for start in config.exclude_modules:
        if not any(name.startswith(start) for name in modules):
            raise UserError(f"delta.exclude_modules: no module's name starts with '{start}'.")
    matched = [
        name
        for name in modules
        if any(ends(name, ending) for ending in config.modified_modules)
        and not any(name.startswith(start) for start in config.exclude_modules)
    ]
    if not matched:
        raise UserError("delta.exclude_modules leaves no module to modify.")
    others = f"; it modifies {', '.join(sorted(fitting))}"
    if not fitting:
        others = ", like all modules of this backbone; choose another delta"
    for name in matched:
        if name not in takes:
            raise UserError(
                f"delta.modified_modules: {name} is a {type(modules[name]).__name__}, which "
                f"{kind} cannot modify{others}."
            )
    if isinstance(config, AdapterConfig | LowRankAdapterConfig | CompacterConfig):
        _refuse_nested(matched)
    return matched


def _refuse_nested(names: list[str]) -> None:
    """`ffn` is the end of both layers.0.ffn and layers.0.ffn.ffn: two adapters, not one."""
    for name in names:
        outer = next((other for other in names if name.startswith(other + ".")), None)
        if outer is not None:
            raise UserError(
                f"delta.modified_modules names both {outer} and {name} inside it; name one of "
                f"them, by a longer ending such as {'.'.join(name.split('.')[-2:])}."
            )


def check_sizes(backbone: Backbone, config: ModuleConfig, names: list[str]) -> None:
    """Raise UserError if a module's output cannot be divided as the config says, or a rank is above
    what the module's own weight can have."""
    for name in names:
        taken, width = widths(backbone, name)
        if isinstance(config, LoraConfig) and config.lora_r > min(taken, width):
            raise UserError(
                f"delta.lora_r is {config.lora_r}, but {name} is {taken} x {width}: its weight has "
                f"at most rank {min(taken, width)}."
            )
        if isinstance(config, LowRankAdapterConfig):
            bottleneck = width // config.reduction_factor
            if config.low_rank_rank > bottleneck:
                raise UserError(
                    f"delta.low_rank_rank is {config.low_rank_rank}, but the bottleneck of {name} "
                    f"is {width} / reduction_factor {config.reduction_factor} = {bottleneck}; "
                    "lower one of the two."
                )
        if isinstance(config, CompacterConfig):
            parts = config.reduction_factor * config.hypercomplex_division
            if width % parts:
                raise UserError(
                    f"delta.reduction_factor x delta.hypercomplex_division is {parts}, which does "
                    f"not divide the width {width} of {name}; lower one of the two."
                )
            if config.phm_rank > width:
                raise UserError(
                    f"delta.phm_rank is {config.phm_rank}, above the width {width} of {name}."
                )


def matched_pairs(backbone: Backbone, config: ParallelAdapterConfig) -> list[tuple[str, str]]:
    """(input of, output of) of each parallel adapter: always within one sub-block, input first.

    Raises UserError for a pair that is anything else, or whose two widths differ.
    """
    matched, order = matched_modules(backbone, config), [n for n, _ in backbone.named_modules()]
    pairs = []
    for first, last in zip(
        config.modified_modules[::2], config.modified_modules[1::2], strict=True
    ):
        starts, ends = (_by_block(backbone, matched, ending) for ending in (first, last))
        if starts.keys() != ends.keys():
            raise UserError(
                f"delta.modified_modules: '{first}' and '{last}' are a pair (input of, output of), "
                "but are not in the same sub-blocks."
            )
        for start, end in ((starts[block], ends[block]) for block in starts):
            inside = [n for n in order if n == end or n.startswith(end + ".")]
            if order.index(start) > order.index(inside[-1]):
                raise UserError(
                    f"delta.modified_modules: {end} is done before {start} begins; swap the pair."
                )
            taken = widths(backbone, start)[0]
            added = widths(backbone, end)[1]
            if taken != added:
                raise UserError(
                    f"delta.modified_modules: the input of {start} is {taken} wide, the output of "
                    f"{end} {added}; a parallel adapter needs them equal."
                )
            pairs.append((start, end))
    if len(set(pairs)) != len(pairs):
        raise UserError("delta.modified_modules names a pair twice.")
    return pairs


def _by_block(backbone: Backbone, names: list[str], ending: str) -> dict[str, str]:
    """Sub-block (such as encoder.layers.0.ffn) -> the one module in it with that ending."""
    layers = backbone.layer_names
    by_block: dict[str, str] = {}
    for name in names:
        if ends(name, ending):
            layer = next((layer for layer in layers if name.startswith(f"{layer}.")), "")
            block = ".".join(name.split(".")[: len(layer.split(".")) + 1])
            if block in by_block:
                raise UserError(
                    f"delta.modified_modules: '{ending}' names both {by_block[block]} and {name}; "
                    "give a longer ending, such as ffn.ffn."
                )
            by_block[block] = name
    return by_block
