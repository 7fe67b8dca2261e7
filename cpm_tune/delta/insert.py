"""Puts a delta into a backbone, freezes the rest, and saves and loads the delta alone.

OpenDelta can fail silently in several ways; each is an error here: no module matched, a named
module that matches nothing, no trainable parameter, a frozen parameter that moved, a delta loaded
onto another backbone.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cpm_tune.backbone.model import CPMAnt
from cpm_tune.delta.config import DeltaConfig, LoraConfig, NoneConfig, parse_config
from cpm_tune.errors import UserError, did_you_mean

WEIGHTS, CONFIG = "delta.safetensors", "delta.json"


@dataclass
class Delta:
    """A delta inside a backbone. `parameters` maps state-dict names to what is trained."""

    config: DeltaConfig
    parameters: dict[str, nn.Parameter]
    backbone: CPMAnt
    backbone_sha256: str

    @property
    def n_trainable(self) -> int:
        """Number of trained values."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    def state(self) -> dict[str, Tensor]:
        """A copy of the delta's tensors, on the CPU."""
        return {k: p.detach().cpu().clone() for k, p in self.parameters.items()}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Copy tensors in; raise UserError unless names and shapes are exactly this delta's."""
        expected = {k: tuple(p.shape) for k, p in self.parameters.items()}
        given = {k: tuple(t.shape) for k, t in state.items()}
        if expected != given:
            wrong = sorted(k for k in expected | given if expected.get(k) != given.get(k))[0]
            raise UserError(
                f"the saved delta does not fit: {wrong} is {given.get(wrong, 'absent')}, expected "
                f"{expected.get(wrong, 'absent')}; use the delta config it was trained with."
            )
        for key, tensor in state.items():
            self.parameters[key].copy_(tensor)

    def save(self, folder: Path) -> None:
        """Write delta.safetensors (the delta alone) and delta.json, each atomically."""
        from safetensors.torch import save_file

        about = {
            "backbone_sha256": self.backbone_sha256,
            "config": self.config.model_dump(mode="json"),
        }
        part = folder / (WEIGHTS + ".part")
        save_file(self.state(), part, metadata={"cpm_tune": json.dumps(about, sort_keys=True)})
        os.replace(part, folder / WEIGHTS)
        part = folder / (CONFIG + ".part")
        part.write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(part, folder / CONFIG)


def load_delta(folder: Path, backbone: CPMAnt, backbone_sha256: str) -> Delta:
    """Insert a saved delta into its backbone; raise UserError if it belongs to another one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        about = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        owner, config = about["backbone_sha256"], about["config"]
        state = load_file(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{folder}: no readable delta ({WEIGHTS} and {CONFIG}): {error}") from error
    if owner != backbone_sha256:
        raise UserError(
            f"{folder}: this delta was trained on another backbone (sha256 {owner[:12]}…, here "
            f"{backbone_sha256[:12]}…); give --backbone the one it was trained on."
        )
    delta = insert(backbone, parse_config(config, str(folder / CONFIG)), owner, seed=0)
    delta.load_state(state)
    return delta


def insert(backbone: CPMAnt, config: DeltaConfig, backbone_sha256: str, seed: int) -> Delta:
    """Insert a delta, freeze everything else, draw its initial values from `seed`.

    Delta parameters are fp32 whatever the backbone's dtype. Raises UserError where nothing would be
    trained.
    """
    before = dict(backbone.named_parameters())
    backbone.requires_grad_(False)
    if isinstance(config, NoneConfig):
        return Delta(config, {}, backbone, backbone_sha256)
    _check_modules(backbone, config)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _insert_lora(backbone, config)
    after = dict(backbone.named_parameters())
    moved = [name for name, parameter in before.items() if after.get(name) is not parameter]
    if moved:
        raise UserError(f"inserting {config.delta_type} replaced the frozen parameter {moved[0]}.")
    added = {name: parameter for name, parameter in after.items() if name not in before}
    for parameter in added.values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    delta = Delta(config, added, backbone, backbone_sha256)
    trainable = {name for name, p in backbone.named_parameters() if p.requires_grad}
    if not added or trainable != set(added):
        raise UserError(f"{config.delta_type} left nothing to train; check modified_modules.")
    return delta


def _insert_lora(backbone: CPMAnt, config: LoraConfig) -> None:
    from cpm_tune.delta.opendelta_import import opendelta

    # OpenDelta's LoRA ignores exclude_modules, so it is given the full names that remain.
    opendelta().LoraModel(
        backbone_model=backbone,
        modified_modules=matched_modules(backbone, config),
        lora_r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        backend="hf",
    )


def matched_modules(backbone: CPMAnt, config: LoraConfig) -> list[str]:
    """Full names of the modules that a delta modifies, by OpenDelta's rule: whole name endings."""
    return [
        name
        for name, _ in backbone.named_modules()
        if any(("." + name).endswith("." + ending) for ending in config.modified_modules)
        and not any(name.startswith(start) for start in config.exclude_modules)
    ]


def _check_modules(backbone: CPMAnt, config: LoraConfig) -> None:
    names = [name for name, _ in backbone.named_modules()]
    linears = {
        name.rsplit(".", 1)[-1]
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear)
    }
    for ending in config.modified_modules:
        if not any(("." + name).endswith("." + ending) for name in names):
            raise UserError(
                f"delta.modified_modules: no module of the backbone is named '{ending}'."
                f"{did_you_mean(ending, linears)}"
            )
    for start in config.exclude_modules:
        if not any(name.startswith(start) for name in names):
            raise UserError(f"delta.exclude_modules: no module's name starts with '{start}'.")
    matched = matched_modules(backbone, config)
    if not matched:
        raise UserError("delta.exclude_modules leaves no module to modify.")
    modules: dict[str, Any] = dict(backbone.named_modules())
    for name in matched:
        if not isinstance(modules[name], nn.Linear):
            raise UserError(
                f"delta.modified_modules: {name} is a {type(modules[name]).__name__}, but "
                f"{config.delta_type} modifies linear layers ({', '.join(sorted(linears))})."
            )


@torch.no_grad()
def frozen_checksum(backbone: CPMAnt, delta: Delta) -> int:
    """A checksum of every bit of the frozen parameters: it must be the same after training."""
    total = 0
    for name, parameter in backbone.named_parameters():
        if name not in delta.parameters:
            bits = {2: torch.int16, 4: torch.int32}[parameter.element_size()]
            words = parameter.detach().contiguous().view(bits).flatten()
            rest = words.long() * (torch.arange(len(words), device=words.device) % 251 + 1)
            total = (total * 1_000_003 + int(rest.sum())) % 2**61
    return total
