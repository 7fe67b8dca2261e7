"""The torch engine: one process, or several that each have the whole frozen backbone.

Only the delta has gradients, a few megabytes even on 10B, and they are summed over the processes
once per step, after accumulation. Data parallelism needs no more than that:
DistributedDataParallel's buckets and hooks exist to hide the communication of gradients of the
whole model during its backward pass, and would communicate in every micro-batch by default.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from cpm_tune.engine.adamw import AdamW
from cpm_tune.engine.device import DTYPES, is_out_of_memory
from cpm_tune.engine.memory import set_memory
from cpm_tune.engine.rank import RankInfo, rank_info
from cpm_tune.errors import ProcessLostError, UserError

T = TypeVar("T")
_TOGETHER = 2**25  # values per message
_WAIT = datetime.timedelta(hours=6)  # a rank may wait while another generates long texts
_NCCL_MINUTES = "CPM_TUNE_NCCL_MINUTES"
_LOWEST_SCALE = 1.0
_waiting: Any = None  # with GPUs the group, by gloo, for what may wait long; else None, all of it


def join_group(device: str) -> RankInfo:
    """Join the group of processes that the environment describes; return this one's rank.

    On GPUs its collectives by NCCL end after `nccl_timeout`. Raises UserError if it cannot be
    joined.
    """
    global _waiting
    process = rank_info(os.environ)
    if process.world_size > 1 and not dist.is_initialized():
        cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
        try:
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                rank=process.rank,
                world_size=process.world_size,
                timeout=nccl_timeout(os.environ) if cuda else _WAIT,
            )
            _waiting = dist.new_group(backend="gloo", timeout=_WAIT) if cuda else None
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"the processes did not find each other ({str(error).splitlines()[0]}); expected "
                "MASTER_ADDR and MASTER_PORT as torchrun sets them."
            ) from error
        atexit.register(_leave_group)
    return process


def nccl_timeout(environment: Mapping[str, str]) -> datetime.timedelta:
    """How long a collective of GPUs may wait: 30 minutes, or CPM_TUNE_NCCL_MINUTES.

    It waits for one step of the slowest process at most, so longer means that one hangs; NCCL then
    ends the process. Raises UserError for another value.
    """
    given = environment.get(_NCCL_MINUTES, "30")
    if not (given.isascii() and given.isdigit() and 0 < int(given) <= 10_000):
        raise UserError(
            f"the environment has {_NCCL_MINUTES}={given}, expected whole minutes from 1 to 10000."
        )
    return datetime.timedelta(minutes=int(given))


def _leave_group() -> None:
    """Without this, a process that ends while the group's threads run is aborted."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Raise ProcessLostError if a collective fails because another process has ended; NCCL's run
    on the device, so a failure may appear at the next value that is read from it."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise ProcessLostError(
            "another process of this run has ended; repeat the command to resume from the last "
            f"checkpoint ({str(error).splitlines()[0][:160]})."
        ) from error


class TorchEngine:
    """What training and scoring need from an engine; the others override what differs.

    All processes of a run call the same methods in the same order. `main` is the process that
    writes and reports; `has_loss_scaling`: steps with overflowing gradients are skipped (fp16);
    `splits_on_oom`: a pass that runs out of memory is repeated in smaller ones.

    Frozen weights are in fp32, bf16 or fp16; the delta stays fp32, and autocast casts its small
    matrices in each product.
    """

    name = "torch"

    def __init__(
        self,
        device: torch.device,
        precision: str,
        process: RankInfo | None = None,
        checkpointing: bool = False,
        splits_on_oom: bool = False,
    ) -> None:
        process = process or RankInfo()
        self.device, self.precision = device, precision
        self.rank, self.world_size = process.rank, process.world_size
        self.checkpointing, self.splits_on_oom = checkpointing, splits_on_oom
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        if device.type == "cuda":  # cuDNN's attention makes a plan for every shape, on the host
            torch.backends.cuda.enable_cudnn_sdp(False)

    @property
    def main(self) -> bool:
        return self.rank == 0

    @property
    def has_loss_scaling(self) -> bool:
        return self._scaler.is_enabled() and self._scaler.get_scale() > _LOWEST_SCALE

    def materialise(self, model: Any) -> bool:
        """Allocate this process's part of a backbone on the meta device, for `storage.shards.fill`
        to fill; return False, with nothing done, if every process keeps all of it."""
        return False

    def prepare(self, model: Any) -> Any:
        """Move or wrap a model with its delta inserted; return the module to call."""
        self._recompute_layers(model)
        if self.device.type == "cpu":
            set_memory(model)
        return model.to(self.device)

    def _recompute_layers(self, model: Any) -> None:
        if not self.checkpointing:
            return
        layers = layers_of(model)
        if not layers:
            raise UserError("this backbone names no layers, so none can be recomputed; omit it.")
        for layer in layers:
            _recompute(layer)

    def autocast(self) -> AbstractContextManager[None]:
        """The context in which forward passes run."""
        if self.precision != "fp32":
            return torch.autocast(self.device.type, dtype=DTYPES[self.precision])
        return contextlib.nullcontext()

    def seed(self, seed: int, step: int) -> None:
        """Seed the random numbers of a step; every process has its own."""
        mixed = np.random.SeedSequence([seed, step, self.rank])
        value = int(mixed.generate_state(1, np.uint64)[0])
        # torch.manual_seed keeps the value, and a formatted stack, for every absent kind of device.
        torch.default_generator.manual_seed(value)
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):  # another backbone's may be the current one
                torch.cuda.manual_seed(value)

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """This process's share of a global batch; every item belongs to exactly one process."""
        return items[self.rank :: self.world_size]

    def join(self, model: Any, *, backward: bool = False) -> AbstractContextManager[None]:
        """The context in which processes may make different numbers of forward passes of `model`,
        each with its `backward` pass or all without.

        If an engine's passes are collective, processes that are done join those of the others.
        """
        return contextlib.nullcontext()

    def optimizer(
        self, parameters: Sequence[nn.Parameter], betas: tuple[float, float], weight_decay: float
    ) -> torch.optim.Optimizer:
        """AdamW for the delta's parameters; the loop sets its learning rate in every step."""
        return AdamW(parameters, lr=0.0, betas=betas, weight_decay=weight_decay, fused=True)

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of a loss that is divided by its global count."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def clip(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], max_norm: float
    ) -> float:
        """Sum gradients over processes, clip them to a global norm, return the norm before that."""
        if self.world_size > 1:
            sum_gradients(parameters)
        self._scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(parameters, max_norm, foreach=True)
        with together() if self.world_size > 1 else contextlib.nullcontext():
            return float(norm)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the parameters, unless the gradients overflowed in fp16; clear the gradients."""
        self._scaler.step(optimizer)
        self._scaler.update()
        optimizer.zero_grad(set_to_none=True)

    def reduce_sums(self, values: Sequence[float]) -> list[float]:
        """Sums of numbers over all processes."""
        if self.world_size == 1:
            return list(values)
        both = torch.tensor(values, dtype=torch.float64)
        with together():
            dist.all_reduce(both, group=_waiting)
        return both.tolist()

    def gather(self, items: Sequence[T]) -> list[T]:
        """In the main process all items, in the order before `shard`; elsewhere none."""
        if self.world_size == 1:
            return list(items)
        parts: list[Any] | None = [None] * self.world_size if self.main else None
        with together():
            dist.gather_object(list(items), parts, group=_waiting)
        if parts is None:
            return []
        whole: list[Any] = [None] * sum(map(len, parts))
        for rank, part in enumerate(parts):
            whole[rank :: self.world_size] = part
        return whole

    def broadcast(self, value: T) -> T:
        """The main process's value, in every process."""
        if self.world_size == 1:
            return value
        box = [value]
        with together():
            dist.broadcast_object_list(box, group=_waiting)
        return box[0]

    def state(self) -> dict[str, Any]:
        """What the engine needs to resume: the loss scale."""
        return self._scaler.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume from a `state()`, of any number of processes."""
        if state:
            self._scaler.load_state_dict(state)


def sum_gradients(
    parameters: Sequence[Tensor], all_reduce: Callable[[Tensor], object] = dist.all_reduce
) -> None:
    """Sum gradients over all processes; one without gradients (it had no example) adds zero."""
    group: list[Tensor] = []
    for number, parameter in enumerate(parameters, start=1):
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        group.append(parameter.grad)
        if number == len(parameters) or sum(g.numel() for g in group) >= _TOGETHER:
            flat = torch.cat([gradient.flatten() for gradient in group])
            with together():
                all_reduce(flat)
            parts = torch.split(flat, [gradient.numel() for gradient in group])
            for gradient, part in zip(group, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
            group = []


def layers_of(model: Any) -> list[Any]:
    """The layers of all stacks."""
    return [layer for stack in model.layers for layer in stack]


def _recompute(layer: nn.Module) -> None:
    """Keep only a layer's input for the backward pass. Non-reentrant: the input may be frozen."""
    from torch.utils.checkpoint import checkpoint

    forward = layer.forward

    def recomputed(*given: Any, **named: Any) -> Any:
        if layer.training and torch.is_grad_enabled():
            return checkpoint(forward, *given, use_reentrant=False, **named)
        return forward(*given, **named)

    layer.forward = recomputed
