"""Which modules of a causal language model have which role for deltas: by their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from torch import nn

from cpm_tune.backbone.causal.architecture import skeleton
from cpm_tune.backbone.causal.config import CausalConfig
from cpm_tune.backbone.causal.model import ATTENTION, FFN, CausalLM, is_norm

# The last part of a name, by the sub-block that it is in.
_IN_ATTENTION = {
    "@attention.q": ("q_proj", "q", "query", "q_a_proj", "q_b_proj"),
    "@attention.k": ("k_proj", "k", "key", "kv_b_proj"),
    "@attention.v": ("v_proj", "v", "value", "kv_b_proj"),
    "@attention.o": ("o_proj", "c_proj", "dense", "out_proj"),
}
_IN_FFN = {
    "@ffn.in": (
        *("gate_proj", "up_proj", "gate_up_proj", "c_fc", "dense_h_to_4h", "fc1", "fc_in"),
        *("w1", "w3"),
    ),
    "@ffn.out": ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "fc_out", "w2"),
}
# Of a layer's norms the first that it has.
_BEFORE_ATTENTION = (
    *("input_layernorm", "ln_1", "self_attn_layer_norm", "norm_1", "operator_norm"),
    "post_attention_layernorm",
)
_BEFORE_FFN = (
    *("pre_feedforward_layernorm", "ln_2", "final_layer_norm", "norm_2", "ffn_norm"),
    *("post_feedforward_layernorm", "post_attention_layernorm"),
)


@lru_cache(maxsize=16)
def roles_of(config: CausalConfig) -> Mapping[str, tuple[str, ...]]:
    """The endings of modules' names, by role; a role that the model lacks is absent.

    A model whose sub-blocks share one norm has no name for `@ffn.norm`.
    """
    model = skeleton(config)
    roles: dict[str, dict[str, None]] = {}  # ordered sets

    def add(role: str, names: Iterable[str]) -> None:
        roles.setdefault(role, {}).update(dict.fromkeys(names))

    for layer in model.layers[0]:
        for name, block in layer.named_children():
            if name in ATTENTION and any(True for _ in block.parameters()):
                add("@attention", [name])
                for role, endings in _IN_ATTENTION.items():
                    add(role, _linears(name, block, endings))
            elif name in FFN:
                add("@ffn", [name])
                for role, endings in _IN_FFN.items():
                    add(role, _linears(name, block, endings))
        norms = [name for name, module in layer.named_children() if is_norm(module)]
        first = [name for name in _BEFORE_ATTENTION if name in norms][:1]
        add("@attention.norm", first)
        add("@ffn.norm", [n for n in _BEFORE_FFN if n in norms and n not in first][:1])
        direct = {"@ffn.in": ("fc1",), "@ffn.out": ("fc2",)}  # OPT's, outside of any block
        for role, names in direct.items():
            add(role, [n for n in names if isinstance(getattr(layer, n, None), nn.Linear)])
    add("@norm", _last_norm(model))
    kept = {role: tuple(names) for role, names in roles.items() if names or role == "@ffn.norm"}
    return dict(sorted(kept.items()))


def _linears(place: str, block: nn.Module, endings: tuple[str, ...]) -> list[str]:
    """Names, from the sub-block on, of its linear layers with one of these last parts."""
    return [
        f"{place}.{name}"
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in endings
    ]


def _last_norm(model: CausalLM) -> list[str]:
    """The norm after the last layer, by the end of its name."""
    place = model.trunk
    norms = [
        name for name, module in model.get_submodule(place).named_children() if is_norm(module)
    ]
    last = [
        n for n in norms if n in ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f")
    ]
    return [f"{place.rpartition('.')[2]}.{name}" for name in last[-1:]]
