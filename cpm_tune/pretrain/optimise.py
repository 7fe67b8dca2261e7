"""Optimisers and the learning-rate schedule of pre-training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from cpm_tune.backbone.base import Backbone
from cpm_tune.errors import UserError

BETAS = (0.9, 0.95)
MOMENTUM = 0.95


def make_optimisers(
    model: Backbone, name: str, weight_decay: float
) -> Sequence[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the layers' matrices and AdamW for the rest.

    Norms and the position bias get no weight decay. Muon (Jordan et al., 2024) with the update
    scaled to AdamW's root mean square, so that both share one learning rate.
    """
    layers = tuple(f"{name}." for name in model.layer_names)
    matrices, decayed, plain = [], [], []
    for key, parameter in model.named_parameters():
        if parameter.dim() != 2 or "relative_attention_bias" in key:
            plain.append(parameter)
        elif name == "muon" and key.startswith(layers):
            matrices.append(parameter)
        else:
            decayed.append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=True)
    if not matrices:  # AdamW was asked for, or every sub-block is absent
        return [adamw]
    if not hasattr(torch.optim, "Muon"):
        raise UserError("--optimiser muon needs torch 2.9 or newer; use adamw.")
    muon = torch.optim.Muon(
        matrices,
        lr=0.0,
        momentum=MOMENTUM,
        weight_decay=weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, adamw]


def largest_rate(peak: float, last: float, steps: int, warmup: int) -> float:
    """The largest learning rate of a run of `steps`: less than `peak` if the warm-up is long."""
    end = min(steps, max(1, warmup))  # from there on it falls
    some = range(1, end + 1, max(1, end // 10_000))
    return max(learning_rate(peak, last, n, warmup, (n - 1) / steps) for n in (*some, end))


def learning_rate(peak: float, last: float, step: int, warmup: int, progress: float) -> float:
    """Linear warm-up over steps, times a cosine over `progress` (0 to 1) from 1 to `last`."""
    cosine = last + (1 - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return peak * min(1.0, step / max(1, warmup)) * cosine
