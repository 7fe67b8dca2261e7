"""The engine of one process on one device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class SingleProcess:
    """One process, one device. Under bf16 the frozen weights are bf16 and the delta stays fp32;
    autocast casts the delta's small matrices where they meet."""

    name = "torch"
    rank = 0
    world_size = 1

    def __init__(self, device: torch.device, precision: str) -> None:
        self.device = device
        self.precision = precision

    def prepare(self, model: Any) -> Any:
        return model.to(self.device)

    def autocast(self) -> AbstractContextManager[None]:
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        return items

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def clip(self, parameters: Iterable[Tensor], max_norm: float) -> float:
        return float(torch.nn.utils.clip_grad_norm_(parameters, max_norm))

    def reduce_sum(self, value: float) -> float:
        return value

    def gather(self, items: Sequence[T]) -> list[T]:
        return list(items)

    def barrier(self) -> None:
        return None
