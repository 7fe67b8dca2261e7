"""The losses of a batch, in bf16 or compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cpm_tune.backbone.pretraining import TrainingBatch
from cpm_tune.errors import UserError

TARGET_BLOCK = 512  # targets are padded to a multiple of it: few shapes for the compiler


def _explained(compiled: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same function; a failure to compile becomes a UserError."""
    from torch._dynamo.exc import BackendCompilerFailed

    def call(*args: object) -> Tensor:
        try:
            return compiled(*args)
        except BackendCompilerFailed as error:
            raise UserError(
                f"torch.compile failed ({error.inner_exception}); install a C++ compiler (g++), or "
                "give --no-compile."
            ) from error

    return call


class TargetLosses:
    """Nats of every target of a batch: (targets,) fp32, in bf16 autocast or compiled if asked for.

    `losses`: the objective's function. `fresh`: the last call had to be compiled.
    """

    def __init__(
        self, model: Any, losses: Callable[..., Tensor], *, bf16: bool, compiled: bool
    ) -> None:
        self.model, self.bf16, self.compiled = model, bf16, compiled
        self.fresh = False
        self._known: set[int] = set()
        self._call = losses
        if compiled:
            self._call = _explained(torch.compile(losses, dynamic=False))

    def __call__(self, batch: TrainingBatch) -> Tensor:
        """The targets are padded to a multiple of TARGET_BLOCK for the call."""
        n = len(batch.index)
        padding = -n % TARGET_BLOCK
        index, token = F.pad(batch.index, (0, padding)), F.pad(batch.token, (0, padding))
        self.fresh = self.compiled and len(index) not in self._known
        self._known.add(len(index))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            losses = self._call(self.model, index, token, *batch.inputs)
        return losses[:n]
