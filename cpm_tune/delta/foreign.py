"""Deltas in the formats of other libraries: PEFT's and OpenDelta's own checkpoints.

PEFT knows one of our methods on transformers' CpmAnt, LoRA: it has no bottleneck adapters, and its
prompts need `inputs_embeds` and `past_key_values`, which CpmAnt does not take.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from cpm_tune.backbone.base import Backbone, LowRank
from cpm_tune.common.saved import write_pickled, write_tensors
from cpm_tune.common.texts import shortened
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
from cpm_tune.delta.names import REGULAR, ends, expression
from cpm_tune.delta.stored import read_files, without_wrappers
from cpm_tune.errors import UserError

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PEFT_PICKLED = "adapter_model.bin"  # PEFT's before 0.6
_PREFIX = "base_model.model."
_PLAIN: dict[str, Any] = {  # what else PEFT's LoRA can be, and what it is here
    "bias": "none",
    "use_dora": False,
    "modules_to_save": None,
}
_VARIANTS = {  # what else adds to the weights than B A, or to what is not a linear layer
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "use_bdlora": "block-diagonal LoRA",
    "alora_invocation_tokens": "activated LoRA",
    "arrow_config": "Arrow routing",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA",
    "kasa_config": "KaSA",
    "bias": "trained biases",
    "lora_bias": "a bias of its own",
    "modules_to_save": "modules trained whole",
    "trainable_token_indices": "trained tokens",
    "layer_replication": "replicated layers",
    "target_parameters": "LoRA on parameters",
    "enable_lora": "MergedLinear of PEFT 0.1",
}
_NEUTRAL = {  # where LoRA is, how it was made, or without effect unless another key is set
    *("peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules"),
    *("task_type", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping"),
    *("peft_version", "runtime_config", "exclude_modules", "layers_to_transform"),
    *("layers_pattern", "megatron_core", "qalora_group_size", "eva_config", "merge_weights"),
    *("rank_pattern", "alpha_pattern", "fan_in_fan_out"),  # the last is for Conv1D alone
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
    loras = backbone.to_transformers(
        {
            name: (state[f"{name}.lora.lora_A"], state[f"{name}.lora.lora_B"])
            for name in lora_modules(state)
        }
    )
    rank = max((len(a) for a, _ in loras.values()), default=config.lora_r)
    alpha = config.lora_alpha if rank == config.lora_r else config.lora_alpha * rank / config.lora_r
    values = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "inference_mode": True,
        "target_modules": _targets(backbone, config, loras),
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": config.lora_dropout,
        "init_lora_weights": True,
        "use_rslora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "fan_in_fan_out": backbone.fan_in_fan_out,
        **_PLAIN,
    }
    _write_json(folder / PEFT_CONFIG, values)
    named = {
        f"{prefix}{name}.lora_{side}.weight": tensor.contiguous()
        for name, pair in loras.items()
        for side, tensor in zip("AB", _of_rank(pair, rank), strict=True)
    }
    write_tensors(folder / PEFT_WEIGHTS, named, {"format": "pt"})


def _of_rank(pair: LowRank, rank: int) -> LowRank:
    """The same product with so many rows and columns: zeros are added."""
    a, b = pair
    more = rank - len(a)
    return F.pad(a, (0, 0, 0, more)), F.pad(b, (0, more))


def _targets(backbone: Backbone, config: LoraConfig, loras: Mapping[str, LowRank]) -> list[str]:
    """Names of modules for PEFT: as they are configured, if transformers has them by these."""
    names = _endings(backbone, config, plain=True)
    return names if all(any(ends(n, end) for end in names) for n in loras) else list(loras)


def read_peft(folder: Path, backbone: Backbone) -> tuple[LoraConfig, dict[str, Tensor]]:
    """Read a LoRA of PEFT's for transformers' class: its config, and tensors under our names.

    Ranks and alphas by module (rank_pattern, alpha_pattern) become one of each: tensors of a lower
    rank get rows of zeros, and B the ratio of the scalings. Raises UserError for other methods,
    variants of LoRA that add more than B A, and keys that are not modules of this backbone.
    """
    file, weights = folder / PEFT_CONFIG, folder / PEFT_WEIGHTS
    if not weights.is_file() and (folder / PEFT_PICKLED).is_file():
        weights = folder / PEFT_PICKLED
    values, tensors = read_files(file, weights, ("peft_type", "r", "lora_alpha"))
    _check_plain(file, values)
    raw = {
        "delta_type": "lora",
        "lora_r": values["r"],
        "lora_alpha": values["lora_alpha"],
        "lora_dropout": values.get("lora_dropout") or 0.0,
    }
    parse_config(raw, str(file))
    parts: dict[str, dict[str, Tensor]] = {}
    for key, inner in without_wrappers(tensors).items():
        name, dot, rest = inner.partition(".lora_")
        side = rest.removesuffix(".weight")
        if not dot or side not in ("A", "B") or tensors[key].dim() != 2:
            raise UserError(f"{weights}: {key} is not part of a LoRA.")
        parts.setdefault(name, {})[side] = tensors[key].float()
    if not parts:
        raise UserError(f"{weights}: contains no tensors, expected a LoRA's.")
    ranks = {name: _rank(weights, name, sides) for name, sides in parts.items()}
    rank = max(ranks.values())
    alphas = {name: _alpha(file, values, name, own, rank) for name, own in ranks.items()}
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    loras: dict[str, LowRank] = {}
    for name, sides in parts.items():
        factor = alphas[name] / alpha
        down, up = sides["A"], sides["B"] if factor == 1 else (sides["B"].double() * factor).float()
        loras[name] = _of_rank((down, up), rank)
    loras = backbone.from_transformers(loras)
    state = {
        f"{name}.lora.lora_{side}": tensor.contiguous()
        for name, pair in loras.items()
        for side, tensor in zip("AB", pair, strict=True)
    }
    raw |= {"modified_modules": list(loras), "lora_r": rank, "lora_alpha": alpha}
    config = parse_config(raw, str(file))
    assert isinstance(config, LoraConfig)
    return _shortest(config, backbone, values.get("target_modules")), state


def _rank(weights: Path, name: str, sides: dict[str, Tensor]) -> int:
    """The rank of a module's two tensors."""
    if sides.keys() != {"A", "B"} or len(sides["A"]) != sides["B"].shape[1]:
        shapes = ", ".join(f"lora_{side} {tuple(t.shape)}" for side, t in sides.items())
        raise UserError(
            f"{weights}: {name} has {shapes}; expected lora_A of (rank, input) and lora_B of "
            "(output, rank)."
        )
    return len(sides["A"])


def _alpha(file: Path, values: dict[str, Any], name: str, rank: int, common: int) -> float:
    """The alpha that scales a module's B A as its own does, if the rank is `common`."""
    expected = _by_pattern(file, values, "rank_pattern", name, values["r"])
    if expected != rank:
        raise UserError(
            f"{file}: the rank of {name} is {expected!r}, but its tensors have {rank}; give the "
            "config that was saved with them."
        )
    alpha = _by_pattern(file, values, "alpha_pattern", name, values["lora_alpha"])
    number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if not number or not 0 < alpha < math.inf:
        raise UserError(f"{file}: the alpha of {name} is {alpha!r}, expected a number above 0.")
    if values.get("use_rslora"):
        alpha *= math.sqrt(rank)
    return alpha if rank == common else float(alpha * (common / rank))


def _by_pattern(file: Path, values: dict[str, Any], key: str, name: str, otherwise: Any) -> Any:
    """The value of the first regular expression that is an ending of a module's name."""
    patterns = values.get(key) or {}
    if not isinstance(patterns, dict):
        raise UserError(f"{file}: {key} is {shortened(patterns)}, expected an object.")
    for pattern, value in patterns.items():
        try:
            search = expression(rf"(?:.*\.)?(?:{pattern})").search
        except ValueError as error:
            raise UserError(f"{file}: {key}: {error}.") from error
        if search(name, whole=True) or search(f"cpmant.{name}", whole=True):
            return value
    return otherwise


def _shortest(config: LoraConfig, backbone: Backbone, targets: Any) -> LoraConfig:
    """The config with `targets` for its modules, if they are the same ones."""
    modules = matched_modules(backbone, config)
    if not isinstance(targets, list) or not all(isinstance(t, str) and t for t in targets):
        return config
    short = config.model_copy(update={"modified_modules": tuple(sorted(set(targets)))})
    if any(t.startswith(REGULAR) or not any(ends(n, t) for n in modules) for t in targets):
        return config
    return short if matched_modules(backbone, short) == modules else config


def _check_plain(file: Path, values: dict[str, Any]) -> None:
    """Raise UserError for anything but a LoRA that adds (alpha / r) B A to the backbone's weights.

    An unknown key is refused if it has a value: PEFT's variants grow in number.
    """
    if values["peft_type"] != "LORA":
        raise UserError(f"{file}: peft_type is {shortened(values['peft_type'])}, expected LORA.")
    how = values.get("init_lora_weights")
    if how not in _LEAVES_BASE:
        raise UserError(
            f"{file}: init_lora_weights is {shortened(how)}, which changes the backbone's weights "
            "as well; save it with PEFT's path_initial_model_for_weight_conversion, as a plain "
            "LoRA."
        )
    for key, value in values.items():
        plain = _PLAIN.get(key)
        if key not in _NEUTRAL and key != "init_lora_weights" and value and value != plain:
            variant = f" ({_VARIANTS[key]})" if key in _VARIANTS else ""
            raise UserError(
                f"{file}: {key[:60]} is {shortened(value)}{variant}, which is not supported here; "
                f"expected {plain!r}."
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


def _endings(backbone: Backbone, config: ModuleConfig, *, plain: bool = False) -> list[str]:
    """Which modules, in a form that needs no exclusion: OpenDelta's LoRA ignores it. `plain`: and
    no regular expression."""
    regular = plain and any(name.startswith(REGULAR) for name in config.modified_modules)
    if config.exclude_modules or regular:
        return matched_modules(backbone, config)
    return list(with_names(config, backbone.config.roles).modified_modules)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
