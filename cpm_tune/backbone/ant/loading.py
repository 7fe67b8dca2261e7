"""Opens a backbone: read or drawn at random, all of it in memory or a part, in 8 bits or not."""

from __future__ import annotations

import torch

from cpm_tune.backbone.ant.checkpoint import load_weights
from cpm_tune.backbone.ant.folder import CPMAntFolder
from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.backbone.ant.streamed import open_streamed
from cpm_tune.backbone.opening import random_backbone
from cpm_tune.backbone.protocol import Materialise
from cpm_tune.backbone.quantize import quantize_int8


def open_backbone(
    folder: CPMAntFolder,
    dtype: torch.dtype,
    *,
    random_seed: int | None = None,
    quantize: str | None = None,
    limit: int | None = None,
    device: torch.device | str = "cpu",
    materialise: Materialise | None = None,
) -> CPMAnt:
    """Return a folder's backbone in `dtype`, or with `random_seed` random weights of its shape.

    Weights are read or drawn onto `device`; those in 8 bits are on the CPU. With at most `limit`
    bytes in memory at a time, see `open_streamed`. `quantize` "int8": its linear weights in 8 bits.
    `materialise`: see `load_weights`. The caller rejects conflicting options
    (`cpm_tune.planning.placement`).
    """
    # 8-bit weights are made on the CPU: a device may have room for them alone.
    home = "cpu" if quantize else device
    if random_seed is not None:
        model = random_backbone(folder.config, random_seed, dtype, materialise, home)
    elif limit is not None:
        model = open_streamed(folder, dtype, limit=limit, device=device)
    else:
        model = load_weights(folder, dtype, materialise, home)
    return quantize_int8(model) if quantize else model
