"""Inserts a delta into a backbone and freezes the rest; saves, loads and removes the delta.

OpenDelta can fail silently in several ways; each is an error here: no module matched, a named
module that matches nothing, no trainable parameter, a second delta on the same backbone, a frozen
parameter that moved, a delta loaded onto another backbone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cpm_tune.backbone.base import Backbone
from cpm_tune.backbone.storage.shards import fill, stored, whole, whole_shape
from cpm_tune.backbone.tokens import Tokenizer
from cpm_tune.common.door import load
from cpm_tune.common.folders import DELTA, DELTA_CONFIG
from cpm_tune.common.saved import write_tensors
from cpm_tune.common.writing import write_atomically
from cpm_tune.delta import own
from cpm_tune.delta.config import (
    DeltaConfig,
    FullConfig,
    NoneConfig,
    SoftPromptConfig,
    check_masks,
    with_names,
)
from cpm_tune.delta.opendelta_import import opendelta
from cpm_tune.delta.stored import ABOUT, read_delta
from cpm_tune.errors import UserError

_CARRIES = "_carries_delta"


@dataclass
class Delta:
    """A delta inside a backbone. `parameters` maps state-dict names to what is trained."""

    config: DeltaConfig
    parameters: dict[str, nn.Parameter] = field(repr=False)
    backbone: Backbone = field(repr=False)
    backbone_sha256: str
    _undo: Callable[[], None] = field(repr=False)
    removed: bool = False

    @property
    def n_trainable(self) -> int:
        """Number of trained values."""
        return sum(whole_shape(parameter).numel() for parameter in self.parameters.values())

    def state(self) -> dict[str, Tensor]:
        """A copy of the delta's tensors, on the CPU. All processes have to call this together."""
        return {k: whole(p) for k, p in self.parameters.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Copy tensors in; raise UserError unless names and shapes are exactly this delta's."""
        expected = {k: tuple(whole_shape(p)) for k, p in self.parameters.items()}
        given = {k: tuple(t.shape) for k, t in state.items()}
        if expected != given:
            wrong = sorted(k for k in expected | given if expected.get(k) != given.get(k))[0]
            raise UserError(
                f"the saved delta does not fit: {wrong} is {given.get(wrong, 'absent')}, expected "
                f"{expected.get(wrong, 'absent')}; use the delta config it was trained with."
            )
        for key, tensor in state.items():
            fill(self.parameters[key], tensor)

    def remove(self) -> None:
        """Take the delta out: the backbone is bit-identical to what it was before.

        Its values are gone then; `state()` or `save` keeps them. A second call does nothing.
        """
        if not self.removed:
            self._undo()
            self.parameters, self.removed = {}, True

    def save(self, folder: str | Path, state: dict[str, Tensor] | None = None) -> None:
        """Write delta.safetensors (only the delta) and delta.json, each atomically, to a folder
        that need not exist. One of several processes can do so alone with the `state`."""
        if self.removed:
            raise UserError("this delta was removed, its values are gone; save it before.")
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror}).") from error
        about = {
            "backbone_sha256": self.backbone_sha256,
            "config": self.config.model_dump(mode="json"),
        }
        metadata = {ABOUT: json.dumps(about, sort_keys=True)}
        write_tensors(folder / DELTA, state or self.state(), metadata)
        write_atomically(folder / DELTA_CONFIG, json.dumps(about, indent=1, sort_keys=True) + "\n")


def load_delta(folder: Path, backbone: Backbone, backbone_sha256: str) -> Delta:
    """Insert a saved delta into its backbone; raise UserError if it belongs to another one."""
    config, state = read_delta(folder, backbone_sha256)
    check_fits(backbone, config, state)
    return insert(backbone, config, backbone_sha256, 0, values=state)


def check_fits(backbone: Backbone, config: DeltaConfig, state: dict[str, Tensor]) -> None:
    """Raise UserError if a saved delta does not fit a backbone, before memory is taken for one that
    its config makes too large."""
    insert(like(backbone), config, "", 0, values=state)


def fixed_by(backbone: Backbone) -> str:
    """Why a backbone's weights cannot be changed, as words for a message; empty if they can."""
    return "a memory limit" * backbone.streamed or "8-bit weights" * backbone.quantized


def like(backbone: Backbone) -> Backbone:
    """A backbone of the same shape without values or delta, to try a delta on."""
    made = backbone.config.skeleton()
    made.streamed, made.quantized = backbone.streamed, backbone.quantized
    return made


def insert(
    backbone: Backbone,
    config: DeltaConfig,
    backbone_sha256: str,
    seed: int,
    tokenizer: Tokenizer | None = None,
    *,
    values: dict[str, Tensor] | None = None,
) -> Delta:
    """Insert a delta, freeze everything else, draw its initial values from `seed`.

    With `values` (a saved delta's tensors) it begins with these instead. The values are fp32
    whatever the backbone's dtype, and those drawn are the same on every device. A tokenizer is
    needed for a soft prompt that begins as a text. Raises UserError if the delta does not fit the
    backbone, nothing would be trained, or the backbone has a delta already.
    """
    delta = _insert(backbone, config, backbone_sha256, seed)
    try:
        if values is not None:
            delta.load_state(values)
        elif isinstance(config, SoftPromptConfig):
            _initialise(delta, config, seed, tokenizer)
    except BaseException:  # nothing half-inserted stays
        delta.remove()
        raise
    return delta


def _insert(backbone: Backbone, config: DeltaConfig, backbone_sha256: str, seed: int) -> Delta:
    config = with_names(config, backbone.config.roles)
    check_masks(config, backbone.config.answers_apart)
    if _CARRIES in vars(backbone):
        raise UserError(
            f"this backbone has a delta already ({vars(backbone)[_CARRIES]}); remove it before "
            f"{config.delta_type} is inserted."
        )
    if isinstance(config, FullConfig) and (how := fixed_by(backbone)):
        raise UserError(
            f"full fine-tuning has its own weights, which a backbone with {how} does not keep; "
            "export it with --to merged and pass that as --backbone."
        )
    before = dict(backbone.named_parameters())
    trained_before = {name: parameter.requires_grad for name, parameter in before.items()}
    take_out = _put_in(backbone, config, seed)
    vars(backbone)[_CARRIES] = config.delta_type

    def undo() -> None:
        take_out()
        vars(backbone).pop(_CARRIES, None)
        for name, parameter in before.items():
            parameter.requires_grad_(trained_before[name])
            parameter.grad = None

    after = dict(backbone.named_parameters())
    moved = [name for name, parameter in before.items() if after.get(name) is not parameter]
    full = isinstance(config, FullConfig)
    trained = {name: p for name, p in after.items() if full or name not in before}
    if moved or not (trained or isinstance(config, NoneConfig)):
        undo()
        if moved:
            raise UserError(f"inserting {config.delta_type} replaced the frozen {moved[0]}.")
        raise UserError(f"{config.delta_type} left nothing to train; check modified_modules.")
    backbone.train(backbone.training)  # new layers begin in training mode
    backbone.requires_grad_(False)
    for parameter in trained.values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return Delta(config, trained, backbone, backbone_sha256, undo)


def _put_in(backbone: Backbone, config: DeltaConfig, seed: int) -> Callable[[], None]:
    """Insert the layers; return what takes them out again."""
    if isinstance(config, NoneConfig):
        return lambda: None
    if isinstance(config, FullConfig):
        return _keep(backbone)

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _way_in(config)(backbone, config)


def _way_in(config: DeltaConfig) -> Callable[[Backbone, DeltaConfig], Callable[[], None]]:
    """OpenDelta where it can be imported, otherwise our own layers, which equal it in every bit.

    Raises UserError with the install command for what they do not have.
    """
    try:
        opendelta()
    except UserError:
        if type(config) not in own.KINDS:
            raise
        return own.insert_model
    way: Callable[..., Any] = load("cpm_tune.delta.models:insert_model")
    return way


def _keep(backbone: Backbone) -> Callable[[], None]:
    """Copy the backbone's values to the CPU, to put them back."""
    kept = {
        name: p.detach().clone() if p.is_meta else p.detach().to("cpu", copy=True)
        for name, p in backbone.named_parameters()
    }

    def restore() -> None:
        for name, parameter in backbone.named_parameters():
            parameter.data = kept[name].to(parameter.device, copy=True)

    return restore


@torch.no_grad()
def _initialise(
    delta: Delta, config: SoftPromptConfig, seed: int, tokenizer: Tokenizer | None
) -> None:
    """Give a soft prompt its first values, at the original scale."""
    (table,) = delta.parameters.values()
    backbone, n = delta.backbone, config.soft_token_num
    if config.token_init == "random":
        return  # drawn when it was inserted
    place = backbone.prompt_table()
    assert place is not None  # or it would not have been inserted
    embedding = place.tokens
    if config.token_init == "prompt":
        prompts = () if place.prompts is None else place.prompts
        if config.init_prompt_type >= len(prompts):
            numbers = f"; choose 0 to {len(prompts) - 1}" if len(prompts) else ""
            raise UserError(
                f"delta.init_prompt_type is {config.init_prompt_type}, but this backbone has "
                f"{len(prompts)} prompts{numbers}."
            )
        embedding = prompts[config.init_prompt_type]
        rows = list(range(len(embedding)))
    elif table.is_meta and tokenizer is None:
        return
    elif config.token_init == "text":
        rows = _known_ids(config.init_text, tokenizer)
    elif config.token_init == "mask":
        rows = [_mask_id(tokenizer)]
    elif table.is_meta:
        return
    else:
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(embedding), generator=generator)[:n].tolist()
    index = [rows[k % len(rows)] for k in range(n)]
    table.copy_(embedding[index].float() * place.unscaled)


def _mask_id(tokenizer: Tokenizer | None) -> int:
    if tokenizer is None:
        raise UserError("delta.token_init is mask, which needs the backbone's tokenizer.")
    index: int | None = getattr(tokenizer, "mask", None)
    if index is None:
        raise UserError(
            "delta.token_init is mask, but this vocabulary has no <mask>; choose vocabulary or "
            "text."
        )
    return index


def _known_ids(text: str, tokenizer: Tokenizer | None) -> list[int]:
    if tokenizer is None:
        raise UserError("delta.token_init is text, which needs the backbone's tokenizer.")
    ids = [i for i in tokenizer.encode(text) if i != tokenizer.unk]
    if not ids:
        raise UserError(f"delta.init_text '{text}' cannot be written in this vocabulary.")
    return ids


@torch.no_grad()
def frozen_checksum(backbone: Backbone, delta: Delta) -> int:
    """A checksum of every bit of the frozen parameters (of this process's part): it must be the
    same after training."""
    total = 0
    for name, parameter in backbone.named_parameters():
        if name not in delta.parameters:
            for part in stored(parameter):
                bits = {1: torch.int8, 2: torch.int16, 4: torch.int32}[part.element_size()]
                flat = part.contiguous().view(bits).flatten()
                for words in torch.split(flat, 251 * 4096):
                    rest = words.long() * (torch.arange(len(words), device=words.device) % 251 + 1)
                    total = (total * 1_000_003 + int(rest.sum())) % 2**61
    return total
