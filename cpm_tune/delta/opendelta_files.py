"""Reads deltas that OpenDelta wrote: a folder of `save_finetuned`, or weights alone, such as the
best.pt of CPM-Live's tuning scripts.

The layers of OpenDelta that we insert are its own (LoRA, adapter, compacter), so their tensors have
the same names and mean the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from cpm_tune.backbone.base import Backbone
from cpm_tune.common.reading import read_json
from cpm_tune.common.texts import shortened
from cpm_tune.delta.config import (
    CONFIGS,
    AdapterConfig,
    CompacterConfig,
    DeltaConfig,
    LoraConfig,
    ModuleConfig,
    parse_config,
)
from cpm_tune.delta.modules import matched_modules
from cpm_tune.delta.stored import read_files, read_tensors, without_wrappers
from cpm_tune.errors import UserError

M = TypeVar("M", bound=ModuleConfig)
CONFIG, WEIGHTS = "config.json", "pytorch_model.bin"
BEST = "best.pt"
_MARKS: dict[type[ModuleConfig], str] = {
    LoraConfig: ".lora.",
    AdapterConfig: ".adapter.",
    CompacterConfig: ".compactor.",
}
_NEUTRAL = {  # who wrote it and for what; the tensors themselves say which modules they modify
    *("backbone_class", "backbone_checkpoint_name", "backbone_hash", "common_structure"),
    *("opendelta_version", "transformers_version", "unfrozen_modules", "exclude_modules"),
    *("delta_type", "modified_modules"),
}
_PLAIN = {"learn_phm": True}  # of settings that we have not, what ours do


def is_opendelta(folder: Path) -> bool:
    """Whether a folder is one of OpenDelta's."""
    if not (folder / CONFIG).is_file():
        return False
    try:
        values = read_json(folder / CONFIG)
    except (OSError, ValueError):
        return (folder / WEIGHTS).is_file()
    return isinstance(values, dict) and "delta_type" in values


def read_opendelta(folder: Path, backbone: Backbone) -> tuple[DeltaConfig, dict[str, Tensor]]:
    """Read a folder that OpenDelta's `save_finetuned`, or our export, wrote.

    Raises UserError for a method whose layers differ here, for settings that ours do not have, and
    for tensors that are not such a delta's on this backbone.
    """
    values, tensors = read_files(folder / CONFIG, folder / WEIGHTS, ("delta_type",))
    where, kind = str(folder / CONFIG), values["delta_type"]
    model = CONFIGS.get(kind) if isinstance(kind, str) else None
    if model not in _MARKS:
        raise UserError(
            f"{where}: delta_type is {shortened(kind)}; of OpenDelta's, lora, adapter and "
            "compacter can be read, the others compute something else on CPM-Ant."
        )
    assert issubclass(model, ModuleConfig)
    state = _renamed(folder / WEIGHTS, tensors, model)
    raw: dict[str, Any] = {"delta_type": kind, "modified_modules": _modules(state, model)}
    for key, value in values.items():
        if key in model.model_fields and key not in _NEUTRAL:
            raw[key] = value
        elif key not in _NEUTRAL and value not in (None, False, _PLAIN.get(key)):
            raise UserError(
                f"{where}: {key[:60]} is {shortened(value)}, which {kind} does not have here."
            )
    config = parse_config(raw, where)
    assert isinstance(config, ModuleConfig)
    return _as_written(config, backbone, values.get("modified_modules"), where), state


def read_alone(file: Path, backbone: Backbone) -> tuple[DeltaConfig, dict[str, Tensor]]:
    """Read the tensors of a LoRA without a config: rank from their shapes, alpha 16, which is
    OpenDelta's default and that of CPM-Live's scripts.

    Raises UserError for anything else.
    """
    tensors = read_tensors(file)
    state = _renamed(file, tensors, LoraConfig)
    rank = {len(t) if t.dim() else 0 for name, t in state.items() if name.endswith("lora_A")}
    raw = {"delta_type": "lora", "modified_modules": _modules(state, LoraConfig)}
    config = parse_config({**raw, "lora_r": max(rank, default=0), "lora_alpha": 16}, str(file))
    assert isinstance(config, LoraConfig)
    endings = sorted({name.rpartition(".")[2] for name in config.modified_modules})
    return _as_written(config, backbone, endings, str(file)), state


def _renamed(
    weights: Path, tensors: dict[str, Tensor], model: type[ModuleConfig]
) -> dict[str, Tensor]:
    """The tensors in fp32 under the backbone's names; raise UserError for one of another kind."""
    kind = model.model_fields["delta_type"].default
    for name in tensors:
        if _MARKS[model] not in name:
            raise UserError(
                f"{weights}: {name[:200]} is not part of a {kind}; save the delta alone, after "
                "OpenDelta's freeze_module(set_state_dict=True)."
            )
    if not tensors:
        raise UserError(f"{weights}: contains no tensors, expected those of a {kind}.")
    return {inner: tensors[name].float() for name, inner in without_wrappers(tensors).items()}


def _modules(state: dict[str, Tensor], model: type[ModuleConfig]) -> list[str]:
    return list(dict.fromkeys(name.partition(_MARKS[model])[0] for name in state))


def _as_written(config: M, backbone: Backbone, written: Any, where: str) -> M:
    """The config with the names of modules as they were written, if they are the same modules."""
    modules = matched_modules(backbone, config)
    if isinstance(written, str):
        written = [written]
    texts = isinstance(written, list) and all(isinstance(name, str) and name for name in written)
    if not texts or not written or len(set(written)) < len(written):
        return config
    try:
        raw = {**config.model_dump(mode="json"), "modified_modules": written}
        short = parse_config(raw, where)
        assert isinstance(short, type(config))
        return short if matched_modules(backbone, short) == modules else config
    except UserError:  # names that fit another backbone, or nothing
        return config
