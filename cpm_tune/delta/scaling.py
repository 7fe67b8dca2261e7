"""Scales a saved delta back towards zero: a way from the bare backbone (0) to the tuned one (1)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from cpm_tune.backbone.base import Backbone
from cpm_tune.backbone.storage.shards import whole
from cpm_tune.delta.config import DeltaConfig, FullConfig, LoraConfig
from cpm_tune.errors import UserError

_B = ".lora_B"


def scaled(
    config: DeltaConfig, state: Mapping[str, Tensor], factor: float, backbone: Backbone
) -> dict[str, Tensor]:
    """A delta's tensors, such that what it adds to `backbone`, which carries none, is multiplied.

    LoRA: `factor` times B. Full fine-tuning: w0 + factor (w - w0). 1 changes no bit, and 0 gives
    the backbone's own outputs. Raises UserError for other deltas, which a factor would not bring
    nearer to the backbone.
    """
    check_scaled(config.delta_type)
    if not 0 <= factor <= 1:
        raise UserError(f"delta_scale is {factor}, expected a number from 0 to 1.")
    if factor == 1:
        return dict(state)
    if isinstance(config, LoraConfig):
        return {k: t * factor if k.endswith(_B) else t for k, t in state.items()}
    bare = {name: whole(p).float() for name, p in backbone.named_parameters() if name in state}
    return {
        k: bare[k] + factor * (t.float() - bare[k]) if k in bare else t for k, t in state.items()
    }


def check_scaled(delta_type: str) -> None:
    """Raise UserError if a delta of this kind cannot be scaled."""
    known = [c.model_fields["delta_type"].default for c in (LoraConfig, FullConfig)]
    if delta_type not in known:
        raise UserError(
            f"a delta of the kind {delta_type} cannot be scaled: only {' and '.join(known)} add "
            "something to the backbone's weights that a factor makes smaller."
        )
