"""Optimisers and the learning-rate schedule of pre-training."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from cpm_tune.backbone.base import Backbone
from cpm_tune.errors import UserError

BETAS = (0.9, 0.95)
MOMENTUM = 0.95
RATE = "rate"  # of a group: what the learning rate is multiplied by


def make_optimisers(
    model: Backbone, name: str, weight_decay: float
) -> Sequence[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the layers' matrices and AdamW for the rest.

    Norms and the position bias get no weight decay. `Backbone.rate_of` multiplies learning rates,
    and not how fast weights decay. Muon (Jordan et al., 2024) with the update
    scaled to AdamW's root mean square, so that both share one learning rate.
    """
    layers = tuple(f"{name}." for name in model.layer_names)
    by_kind: dict[tuple[str, float], list[torch.nn.Parameter]] = defaultdict(list)
    for key, parameter in model.named_parameters():
        if parameter.dim() != 2 or "relative_attention_bias" in key:
            kind = "plain"
        else:
            kind = "matrix" if name == "muon" and key.startswith(layers) else "decayed"
        by_kind[kind, model.rate_of(key)].append(parameter)

    def groups(*kinds: str) -> list[dict[str, Any]]:
        return [
            {
                "params": by_kind[kind, rate],
                "weight_decay": 0.0 if kind == "plain" else weight_decay / rate,
                RATE: rate,
            }
            for kind in kinds
            for of, rate in sorted(by_kind, reverse=True)
            if of == kind
        ]

    adamw = torch.optim.AdamW(groups("decayed", "plain"), lr=0.0, betas=BETAS, fused=True)
    if not (matrices := groups("matrix")):  # AdamW was asked for, or every sub-block is absent
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


def set_rate(optimisers: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """Set the learning rate of a step; a group's is a multiple of it."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate * group.get(RATE, 1.0)  # earlier checkpoints have none


def largest_rate(peak: float, last: float, steps: int, warmup: int) -> float:
    """The largest learning rate of a run of `steps`: less than `peak` if the warm-up is long."""
    end = min(steps, max(1, warmup))  # from there on it falls
    some = range(1, end + 1, max(1, end // 10_000))
    return max(learning_rate(peak, last, n, warmup, (n - 1) / steps) for n in (*some, end))


def learning_rate(peak: float, last: float, step: int, warmup: int, progress: float) -> float:
    """Linear warm-up over steps, times a cosine over `progress` (0 to 1) from 1 to `last`."""
    cosine = last + (1 - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return peak * min(1.0, step / max(1, warmup)) * cosine
