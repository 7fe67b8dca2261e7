"""Where and how tensors run. Nothing outside this folder knows which engine it is.

One process is what exists today; other engines implement the same protocol.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from cpm_tune.errors import UserError
from cpm_tune.spec import Execution

T = TypeVar("T")


class Engine(Protocol):
    """What the training loop and the scorer need of an engine."""

    name: str
    device: torch.device
    rank: int
    world_size: int

    def prepare(self, model: Any) -> Any:
        """Move or wrap a model with its delta inserted; return what to call forward on."""

    def autocast(self) -> AbstractContextManager[None]:
        """The context in which forward passes run."""

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """This process's share of a global batch; every item belongs to exactly one process."""

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of a loss already divided by its global count."""

    def clip(self, parameters: Iterable[Tensor], max_norm: float) -> float:
        """Combine gradients over processes, clip them to a global norm, return the norm before."""

    def reduce_sum(self, value: float) -> float:
        """Sum of a number over all processes."""

    def gather(self, items: Sequence[T]) -> list[T]:
        """All processes' items, in the order before `shard`, on every process."""

    def barrier(self) -> None:
        """Wait for all processes."""


def make_engine(execution: Execution, precision: str) -> Engine:
    """Return the engine for these settings; raise UserError where the machine cannot run them."""
    from cpm_tune.engine.single import SingleProcess

    wanted = execution.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise UserError(f"run.device is '{wanted}', expected cpu, cuda or cuda:0.") from error
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index):
        raise UserError(f"run.device is '{wanted}', expected cpu, cuda or cuda:0.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "run.device is cuda, but torch sees no CUDA device; see `doctor`, or use cpu."
        )
    if execution.threads:
        torch.set_num_threads(execution.threads)
    return SingleProcess(device, precision)
