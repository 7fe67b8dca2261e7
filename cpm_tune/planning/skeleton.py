"""A backbone with a delta inserted, without values: what can be known before weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Size

from cpm_tune.backbone.protocol import BackboneConfig
from cpm_tune.backbone.tokens import Tokenizer
from cpm_tune.delta.config import DeltaConfig
from cpm_tune.delta.insert import insert


@dataclass(frozen=True)
class Skeleton:
    """Names and shapes of a backbone's parameters, frozen or not, and of what is trained; the names
    of its layers."""

    config: BackboneConfig
    delta: DeltaConfig
    backbone: Mapping[str, Size]
    trained: Mapping[str, Size]
    layers: tuple[str, ...]

    @property
    def n_backbone(self) -> int:
        """Number of the backbone's values."""
        return sum(shape.numel() for shape in self.backbone.values())

    @property
    def n_trained(self) -> int:
        """Number of trained values."""
        return sum(shape.numel() for shape in self.trained.values())

    def layer_of(self, name: str) -> str | None:
        """The layer that a parameter is in; None if it is in no layer."""
        return next((layer for layer in self.layers if name.startswith(f"{layer}.")), None)


def make_skeleton(
    config: BackboneConfig, delta: DeltaConfig, tokenizer: Tokenizer | None = None
) -> Skeleton:
    """Insert a delta on the meta device; raise UserError if it does not fit the backbone.

    A tokenizer also checks the text that a soft prompt begins as.
    """
    model = config.skeleton()
    with torch.device("meta"):
        backbone = {name: parameter.shape for name, parameter in model.named_parameters()}
        inserted = insert(model, delta, "", 0, tokenizer)
    trained = {name: parameter.shape for name, parameter in inserted.parameters.items()}
    return Skeleton(config, inserted.config, backbone, trained, model.layer_names)
