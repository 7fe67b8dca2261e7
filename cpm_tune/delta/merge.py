"""Merges a delta into the backbone's weights, if the method allows it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cpm_tune.backbone.base import Backbone
from cpm_tune.delta.config import FullConfig, LoraConfig, NoneConfig
from cpm_tune.delta.insert import Delta, fixed_by
from cpm_tune.errors import UserError

TOLERANCE = 1e-3  # relative to the largest logit; fp32 products in another order give 1e-6


@dataclass(frozen=True)
class Difference:
    """How far merged weights are from backbone and delta: logits after random text."""

    largest: float
    relative: float


@torch.no_grad()
def merge(delta: Delta) -> Difference:
    """Merge a delta; the backbone then has no modules of the delta.

    LoRA: W + (lora_alpha / lora_r) B A. Full fine-tuning is in the weights already. Raises
    UserError for a method that weights cannot express, or if the outputs before and after differ by
    more than TOLERANCE: the backbone is then as it was without the delta.
    """
    backbone, config = delta.backbone, delta.config
    if delta.removed:
        raise UserError("this delta was removed; insert it again to merge it.")
    if isinstance(config, FullConfig | NoneConfig):
        return Difference(0.0, 0.0)
    if not isinstance(config, LoraConfig):
        raise UserError(
            f"a {config.delta_type} cannot be merged: what it computes is not a change of "
            "the weights. LoRA and full can; export others with --to opendelta if possible."
        )
    if how := fixed_by(backbone):
        raise UserError(f"a delta cannot be merged into a backbone with {how}.")
    before, state = _probe(backbone), delta.state()
    delta.remove()
    kept = {}
    for name in lora_modules(state):
        weight = backbone.get_submodule(name).get_parameter("weight")
        kept[name] = weight.clone()
        a, b = (state[f"{name}.lora.lora_{side}"].to(weight.device) for side in "AB")
        weight.copy_(weight.float() + (config.lora_alpha / config.lora_r) * (b @ a))
    after = _probe(backbone)
    largest = float((after - before).abs().max())
    difference = Difference(largest, largest / max(float(before.abs().max()), 1e-12))
    if not difference.relative <= TOLERANCE:
        for name, values in kept.items():
            backbone.get_submodule(name).get_parameter("weight").copy_(values)
        raise UserError(
            f"the merged weights give other outputs: largest difference {largest:.2e}, relative "
            f"{difference.relative:.2e}, allowed {TOLERANCE:g}; use it unmerged."
        )
    return difference


def lora_modules(state: dict[str, Tensor]) -> list[str]:
    """Names of the modules that a LoRA's tensors belong to, in order."""
    end = ".lora.lora_A"
    return [key.removesuffix(end) for key in state if key.endswith(end)]


def _probe(backbone: Backbone) -> Tensor:
    """The fp32 logits at the end of 8 sequences of 32 random tokens."""
    was_training = backbone.training
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(backbone.config.shape.vocabulary, (8, 32), generator=generator)
    batch = backbone.dummy(tokens, 1).to(next(backbone.parameters()).device)
    backbone.eval()
    logits = torch.cat(list(backbone.scores(batch)))
    backbone.train(was_training)
    return logits
