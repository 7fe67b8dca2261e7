"""The architecture of a causal language model: the values of its config.json, and CPM-1's sizes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cpm_tune.backbone.protocol import ConfigDefaults, Shape
from cpm_tune.common.door import load

# Of a config.json, what decides no logit, or could name code elsewhere.
_LEFT_OUT = {
    *("_name_or_path", "name_or_path", "transformers_version", "architectures", "use_cache"),
    *("torch_dtype", "dtype", "_commit_hash", "attn_implementation", "_attn_implementation"),
    *("_attn_implementation_internal", "_experts_implementation", "experts_implementation"),
    *("output_attentions", "output_hidden_states", "return_dict", "task_specific_params"),
    "cpm_tune_trained",
}

_NUMBERS = ("n_embd", "n_layer", "vocab_size", "n_positions")  # of GPT-2


@dataclass(frozen=True)
class CausalConfig(ConfigDefaults):
    """`text` is canonical JSON of what of a config.json decides the logits."""

    text: str
    family: ClassVar[str] = "causal"  # type: ignore[misc]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> CausalConfig:
        """The config of a config.json's values."""
        kept = {key: value for key, value in values.items() if key not in _LEFT_OUT}
        return cls(json.dumps(kept, sort_keys=True, ensure_ascii=False))

    @property
    def values(self) -> dict[str, Any]:
        """A copy of the values."""
        values: dict[str, Any] = json.loads(self.text)
        return values

    @property
    def shape(self) -> Shape:
        """The architecture in numbers; without transformers where the values say all."""
        values = self.values
        if values["model_type"] == "gpt2" and set(_NUMBERS) <= values.keys():
            width, layers, rows, longest = (values[key] for key in _NUMBERS)
            return Shape(width, layers, rows, longest, 2 * width * layers, longest)
        shape: Shape = load("cpm_tune.backbone.causal.architecture:shape_of")(self)
        return shape

    @property
    def roles(self) -> Mapping[str, tuple[str, ...]]:
        roles: Mapping[str, tuple[str, ...]] = load("cpm_tune.backbone.causal.roles:roles_of")(self)
        return roles

    def peft_prefix(self) -> str:
        """Nothing: `CausalLM.to_transformers` gives whole names."""
        return ""

    def skeleton(self, layers: int | None = None) -> Any:
        """The CausalLM without values, on the meta device; with its first `layers` layers alone."""
        return load("cpm_tune.backbone.causal.architecture:skeleton")(self, layers)


def cpm_1(layers: int, width: int, heads: int) -> CausalConfig:
    """CPM-1 of a size: GPT-2's network over 30,000 entries."""
    return CausalConfig.of(
        {
            "model_type": "gpt2",
            "vocab_size": 30000,
            "n_positions": 1024,
            "n_embd": width,
            "n_layer": layers,
            "n_head": heads,
            "bos_token_id": 7,
            "eos_token_id": 7,
            "pad_token_id": 5,
        }
    )


PRESETS = {
    "cpm-1-large": cpm_1(32, 2560, 32),
    "cpm-1-medium": cpm_1(24, 1024, 16),
    "cpm-1-small": cpm_1(12, 768, 12),
}
