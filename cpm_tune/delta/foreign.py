"""Deltas in the formats of other libraries: PEFT's and OpenDelta's own checkpoints.

PEFT knows one of our methods on transformers' CpmAnt, LoRA: it has no bottleneck adapters, and its
prompts need `inputs_embeds` and `past_key_values`, which CpmAnt does not take.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from torch import Tensor

from cpm_tune.backbone.base import Backbone
from cpm_tune.common.saved import write_pickled, write_tensors
from cpm_tune.delta.config import (
    AdapterConfig,
    CompacterConfig,
    DeltaConfig,
    FullConfig,
    LoraConfig,
    ModuleConfig,
    parse_config,
    with_names,
)
from cpm_tune.delta.merge import lora_modules
from cpm_tune.delta.modules import matched_modules
from cpm_tune.delta.stored import read_files
from cpm_tune.errors import UserError

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_PLAIN: dict[str, Any] = {  # what else PEFT's LoRA can be, and what it is here
    "bias": "none",
    "use_dora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "modules_to_save": None,
    "fan_in_fan_out": False,
}
_NEUTRAL = {  # where LoRA is, how it was made, or without effect unless another key is set
    *("peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules"),
    *("task_type", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping"),
    *("peft_version", "runtime_config", "exclude_modules", "layers_to_transform"),
    *("layers_pattern", "megatron_core", "qalora_group_size", "eva_config"),
}
_LEAVES_BASE = (True, False, None, "gaussian", "eva", "orthogonal")  # others change the backbone


def write_peft(
    folder: Path, backbone: Backbone, config: DeltaConfig, state: dict[str, Tensor]
) -> None:
    """Write a LoRA as PEFT does, for transformers' class of this model.

    Raises UserError for any other method, or a backbone that transformers has no class for.
    """
    prefix = _PREFIX + backbone.config.peft_prefix()
    if not isinstance(config, LoraConfig):
        raise UserError(
            f"PEFT cannot express {config.delta_type} here, only lora; {_way_out(config)}."
        )
    values = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "inference_mode": True,
        "target_modules": _endings(backbone, config),
        "r": config.lora_r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "init_lora_weights": True,
        "use_rslora": False,
        **_PLAIN,
    }
    _write_json(folder / PEFT_CONFIG, values)
    named = {
        f"{prefix}{name}.lora_{side}.weight": state[f"{name}.lora.lora_{side}"].contiguous()
        for name in lora_modules(state)
        for side in "AB"
    }
    write_tensors(folder / PEFT_WEIGHTS, named, {"format": "pt"})


def read_peft(folder: Path, backbone: Backbone) -> tuple[LoraConfig, dict[str, Tensor]]:
    """Read a LoRA of PEFT's for transformers' CpmAnt: its config, and tensors under our names.

    Raises UserError for other methods, variants of LoRA that add more than B A, and keys that are
    not modules of this backbone.
    """
    keys = ("peft_type", "r", "lora_alpha")
    values, tensors = read_files(folder / PEFT_CONFIG, folder / PEFT_WEIGHTS, keys)
    _check_plain(folder / PEFT_CONFIG, values)
    state: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name, dot, rest = key.removeprefix(_PREFIX).removeprefix("cpmant.").partition(".lora_")
        side = rest.removesuffix(".weight")
        if not dot or side not in ("A", "B") or tensor.dim() != 2:
            raise UserError(f"{folder / PEFT_WEIGHTS}: {key} is not part of a LoRA.")
        state[f"{name}.lora.lora_{side}"] = tensor.float()
    if not state:
        raise UserError(f"{folder / PEFT_WEIGHTS}: contains no tensors, expected a LoRA's.")
    raw = {
        "delta_type": "lora",
        "modified_modules": lora_modules(state),
        "lora_r": values["r"],
        "lora_alpha": values["lora_alpha"],
        "lora_dropout": values.get("lora_dropout") or 0.0,
    }
    targets = values.get("target_modules")
    config = parse_config(raw, str(folder / PEFT_CONFIG))
    assert isinstance(config, LoraConfig)
    if values.get("use_rslora"):
        config = config.model_copy(
            update={"lora_alpha": config.lora_alpha * math.sqrt(config.lora_r)}
        )
    modules = matched_modules(backbone, config)
    if isinstance(targets, list) and all(isinstance(target, str) for target in targets):
        short = config.model_copy(update={"modified_modules": tuple(sorted(targets))})
        if all(any(("." + n).endswith("." + t) for n in modules) for t in targets):
            config = short if matched_modules(backbone, short) == modules else config
    return config, state


def _check_plain(file: Path, values: dict[str, Any]) -> None:
    """Raise UserError for anything but a LoRA that adds (alpha / r) B A to the backbone's weights.

    An unknown key is refused if it has a value: PEFT's variants grow in number.
    """
    if values["peft_type"] != "LORA":
        raise UserError(f"{file}: peft_type is {values['peft_type']!r}, expected LORA.")
    how = values.get("init_lora_weights")
    if how not in _LEAVES_BASE:
        raise UserError(
            f"{file}: init_lora_weights is {how!r}, which changes the backbone's weights as well; "
            "save it with PEFT's path_initial_model_for_weight_conversion, as a plain LoRA."
        )
    for key, value in values.items():
        plain = _PLAIN.get(key)
        if key not in _NEUTRAL and key != "init_lora_weights" and value and value != plain:
            raise UserError(
                f"{file}: {key} is {value!r}, which is not supported here; expected {plain!r}."
            )


def write_opendelta(
    folder: Path, backbone: Backbone, config: DeltaConfig, state: dict[str, Tensor]
) -> None:
    """Write a checkpoint as OpenDelta's `save_finetuned` does: config.json, pytorch_model.bin.

    Raises UserError for a method whose OpenDelta class does not work on CPM-Ant.
    """
    if not isinstance(config, LoraConfig | AdapterConfig | CompacterConfig):
        raise UserError(
            f"OpenDelta's own {config.delta_type} does not work on CPM-Ant (ours computes it "
            "differently, see docs/deltas.md), so it could not load this; lora, adapter and "
            "compacter can be exported."
        )
    values = config.model_dump(mode="json", exclude={"exclude_modules"})
    values["modified_modules"] = _endings(backbone, config)
    values |= {"backbone_class": type(backbone).__name__, "opendelta_version": "0.3.2"}
    _write_json(folder / "config.json", {**values, "common_structure": False})
    write_pickled(folder / "pytorch_model.bin", state)


def _way_out(config: DeltaConfig) -> str:
    """What a user can do with a delta that PEFT does not know."""
    if isinstance(config, AdapterConfig | CompacterConfig):
        return "use --to opendelta"
    if isinstance(config, FullConfig):
        return "use --to hf"
    return "no other library can: use it with predict and load_delta"


def _endings(backbone: Backbone, config: ModuleConfig) -> list[str]:
    """Which modules, in a form that needs no exclusion: OpenDelta's LoRA ignores it."""
    if config.exclude_modules:
        return matched_modules(backbone, config)
    return list(with_names(config, backbone.config.roles).modified_modules)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
