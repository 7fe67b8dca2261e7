"""A `torch.cuda` that is not there, for tests on CPUs: it records what it is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch


@dataclass
class Cuda:
    """`calls`: (function, device) of each call that names one, in order. `current`: the device."""

    count: int = 1
    current: int = 0
    initialised: bool = True
    calls: list[tuple[str, Any]] = field(default_factory=list)

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def note(self, name: str, returns: Any = None) -> Any:
        def call(device: Any = None, *others: Any) -> Any:
            self.calls.append((name, device))
            return returns

        return call


def install(monkeypatch: pytest.MonkeyPatch, count: int = 1, initialised: bool = True) -> Cuda:
    """Let torch see `count` CUDA devices until the test ends."""
    cuda = Cuda(count, initialised=initialised)

    def set_device(device: Any) -> None:
        cuda.calls.append(("set_device", device))
        cuda.current = torch.device(device).index

    @contextlib.contextmanager
    def device(chosen: Any) -> Iterator[None]:
        before, cuda.current = cuda.current, torch.device(chosen).index
        yield
        cuda.current = before

    replaced = {
        "is_available": lambda: count > 0,
        "is_initialized": lambda: cuda.initialised,
        "device_count": lambda: count,
        "current_device": lambda: cuda.current,
        "set_device": set_device,
        "device": device,
        "manual_seed": lambda value: cuda.calls.append(("manual_seed", cuda.current)),
        "empty_cache": cuda.note("empty_cache"),
        "reset_peak_memory_stats": cuda.note("reset_peak_memory_stats"),
        "max_memory_allocated": cuda.note("max_memory_allocated", 12345),
        "mem_get_info": cuda.note("mem_get_info", (1000, 9000)),
        "memory_reserved": cuda.note("memory_reserved", 700),
        "memory_allocated": cuda.note("memory_allocated", 300),
        "get_device_name": cuda.note("get_device_name", "A GPU"),
        "get_device_capability": cuda.note("get_device_capability", (9, 0)),
    }
    for name, function in replaced.items():
        monkeypatch.setattr(torch.cuda, name, function)
    return cuda
