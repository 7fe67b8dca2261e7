"""Where and how tensors run. Nothing outside this folder knows which engine it is.

`pytorch` is the engine of one or several processes, `bmtrain` that of ZeRO-3; `launch` starts
several.
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
    """What training and scoring need of an engine.

    All processes of a run call the same methods in the same order. `main` is the process that
    writes and reports; `has_loss_scaling`: a step with overflowing gradients is skipped (fp16);
    `splits_on_oom`: a pass that runs out of memory is made again in smaller ones.
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
        """Give a backbone without values (meta device) memory for what this process keeps of it;
        False, with nothing done, if that is all of it. `backbone.shards.fill` then fills it."""

    def prepare(self, model: Any) -> Any:
        """Move or wrap a model with its delta inserted; return what to call forward on."""

    def autocast(self) -> AbstractContextManager[None]:
        """The context in which forward passes run."""

    def seed(self, seed: int, step: int) -> None:
        """Begin the random numbers of a step; every process has its own."""

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """This process's share of a global batch; every item belongs to exactly one process."""

    def join(self, model: Any, *, backward: bool = False) -> AbstractContextManager[None]:
        """Where processes may make different numbers of forward passes of `model`, each with its
        `backward` pass or all without.

        An engine whose passes are collective lets those that are done take part in the others'.
        """

    def optimizer(
        self, parameters: Sequence[nn.Parameter], betas: tuple[float, float], weight_decay: float
    ) -> torch.optim.Optimizer:
        """AdamW of the delta's parameters; the loop sets its learning rate in every step."""

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of a loss already divided by its global count."""

    def clip(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], max_norm: float
    ) -> float:
        """Combine gradients over processes, clip them to a global norm, return the norm before."""

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Change the parameters (unless the gradients overflowed in fp16); clear the gradients."""

    def reduce_sums(self, values: Sequence[float]) -> list[float]:
        """Sums of numbers over all processes."""

    def gather(self, items: Sequence[T]) -> list[T]:
        """In the main process all items, in the order before `shard`; elsewhere none."""

    def broadcast(self, value: T) -> T:
        """The main process's value, in every process."""

    def state(self) -> dict[str, Any]:
        """What the engine has to know to go on: the loss scale."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state()`, of any number of processes."""


def make_engine(execution: Execution, precision: str) -> Engine:
    """Return the engine for these settings; raise UserError where the machine cannot run them.

    Under torchrun (or `launch`) this process becomes one of its group.
    """
    if execution.engine == "bmtrain":
        return make_bmtrain(execution, precision)

    own = join_group(execution.device)
    if execution.threads:
        torch.set_num_threads(execution.threads)
    device = choose_device(execution.device, own.local_rank)
    if execution.shard or execution.offload:
        if own.world_size == 1 and not execution.offload:
            raise UserError(
                "--shard divides the backbone over several processes, but there is one; add "
                "--nproc N (or --offload, which keeps it in host memory)."
            )
        return ShardedEngine(
            device,
            precision,
            own,
            checkpointing=execution.checkpointing,
            offload=execution.offload,
        )
    return TorchEngine(
        device,
        precision,
        own,
        checkpointing=execution.checkpointing,
        splits_on_oom=execution.auto_batch,
    )
