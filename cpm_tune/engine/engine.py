"""Where and how tensors run. Nothing outside this folder knows which engine it is.

`pytorch` runs one or several processes, `sharded` divides the backbone over them, `bmtrain` does so
with ZeRO-3; `launch` starts several processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from cpm_tune.engine.bmtrain import make_bmtrain
from cpm_tune.engine.device import choose_device
from cpm_tune.engine.pytorch import TorchEngine, join_group
from cpm_tune.engine.sharded import ShardedEngine
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Execution

T = TypeVar("T")


class Engine(Protocol):
    """What training and scoring need from an engine.

    All processes of a run call the same methods in the same order. `main` is the process that
    writes and reports; `has_loss_scaling`: steps with overflowing gradients are skipped (fp16);
    `splits_on_oom`: a pass that runs out of memory is repeated in smaller ones.
    """

    name: str
    device: torch.device
    rank: int
    world_size: int
    splits_on_oom: bool

    @property
    def main(self) -> bool: ...

    @property
    def has_loss_scaling(self) -> bool: ...

    def materialise(self, model: Any) -> bool:
        """Allocate this process's part of a backbone on the meta device, for `backbone.shards.fill`
        to fill; return False, with nothing done, if every process keeps all of it."""

    def prepare(self, model: Any) -> Any:
        """Move or wrap a model with its delta inserted; return the module to call."""

    def autocast(self) -> AbstractContextManager[None]:
        """The context in which forward passes run."""

    def seed(self, seed: int, step: int) -> None:
        """Seed the random numbers of a step; every process has its own."""

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """This process's share of a global batch; every item belongs to exactly one process."""

    def join(self, model: Any, *, backward: bool = False) -> AbstractContextManager[None]:
        """The context in which processes may make different numbers of forward passes of `model`,
        each with its `backward` pass or all without.

        If an engine's passes are collective, processes that are done join those of the others.
        """

    def optimizer(
        self, parameters: Sequence[nn.Parameter], betas: tuple[float, float], weight_decay: float
    ) -> torch.optim.Optimizer:
        """AdamW for the delta's parameters; the loop sets its learning rate in every step."""

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of a loss that is divided by its global count."""

    def clip(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], max_norm: float
    ) -> float:
        """Sum gradients over processes, clip them to a global norm, return the norm before that."""

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the parameters, unless the gradients overflowed in fp16; clear the gradients."""

    def reduce_sums(self, values: Sequence[float]) -> list[float]:
        """Sums of numbers over all processes."""

    def gather(self, items: Sequence[T]) -> list[T]:
        """In the main process all items, in the order before `shard`; elsewhere none."""

    def broadcast(self, value: T) -> T:
        """The main process's value, in every process."""

    def state(self) -> dict[str, Any]:
        """What the engine needs to resume: the loss scale."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume from a `state()`, of any number of processes."""


def make_engine(execution: Execution, precision: str) -> Engine:
    """Return the engine for these settings; raise UserError if the machine cannot run them.

    Under torchrun (or `launch`) this process joins its group.
    """
    if execution.engine == "bmtrain":
        return make_bmtrain(execution, precision)
    process = join_group(execution.device)
    if execution.threads:
        torch.set_num_threads(execution.threads)
    device = choose_device(execution.device, process.local_rank)
    if execution.shard or execution.offload:
        if process.world_size == 1 and not execution.offload:
            raise UserError(
                "--shard divides the backbone over several processes, but there is one; add "
                "--nproc N (or --offload, which keeps it in host memory)."
            )
        return ShardedEngine(
            device,
            precision,
            process,
            checkpointing=execution.checkpointing,
            offload=execution.offload,
        )
    return TorchEngine(
        device,
        precision,
        process,
        checkpointing=execution.checkpointing,
        splits_on_oom=execution.auto_batch,
    )
