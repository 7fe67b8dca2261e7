"""A test double for BMTrain 1.0.1: its Python code as it is, on CPU processes.

`install` replaces what needs a GPU, and that only:

- its compiled extension (bindings of NCCL, CUDA kernels, a CPU Adam for half precision);
- `bmtrain.nccl`, by torch's gloo group;
- `torch` as BMTrain's modules see it, by one in which "cuda" is the CPU and streams are nothing;
- two methods of tensors that have to do with streams and page-locked memory: they do nothing.

What stays is what BMTrain is about: blocks with ZeRO-2 and ZeRO-3, distributed parameters, hooks,
checkpointing, the optimisers and their manager. A process can have it or not, so it is installed in
processes that do nothing else: children of a test, or this file as a program, which takes the
arguments of `tune.py` under torchrun:

    torchrun --nproc-per-node 2 tests/bmtrain_double.py --task lcqmc --delta lora --engine bmtrain
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

FACTORIES = ("tensor", "empty", "zeros")
CUDA_TYPES = [name for name in dir(torch) if name.endswith(("Storage", "Tensor"))]


class _Nothing:
    """A stream or an event: on a CPU everything has happened when a call returns."""

    cuda_stream = 0

    def __init__(self, *given: Any, **named: Any) -> None: ...

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *given, **named: None


class _Parameter(torch.nn.Parameter):
    """Blocks assert that their storage is on a GPU."""

    is_cuda = True  # type: ignore[assignment]


class _Proxy(types.ModuleType):
    """A module with some names replaced."""

    def __init__(self, real: types.ModuleType, **replaced: Any) -> None:
        super().__init__(real.__name__)
        vars(self).update(replaced, _real=real)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_real"], name)


def _on_cpu(factory: Callable[..., Any]) -> Callable[..., Any]:
    def make(*given: Any, **named: Any) -> Any:
        if str(named.get("device")).startswith("cuda"):
            named["device"] = "cpu"
        named.pop("pin_memory", None)
        return factory(*given, **named)

    return make


def _torch() -> types.ModuleType:
    """torch, with a GPU that is the CPU."""
    cuda = types.SimpleNamespace(
        is_available=lambda: True,
        set_device=lambda device: None,
        current_device=lambda: 0,
        current_stream=_Nothing,
        stream=lambda stream: contextlib.nullcontext(),
        get_rng_state=torch.get_rng_state,
        Stream=_Nothing,
        Event=_Nothing,
        **{name: getattr(torch, name) for name in CUDA_TYPES},
    )
    nn = _Proxy(torch.nn, Parameter=_Parameter)
    made = {name: _on_cpu(getattr(torch, name)) for name in FACTORIES}
    return _Proxy(torch, cuda=cuda, nn=nn, **made)


# --- NCCL by gloo: the same calls on storages, one group of all processes ------------------------

REDUCTIONS = {"sum": "SUM", "avg": "SUM", "max": "MAX", "min": "MIN", "prod": "PRODUCT"}


class _Communicator:
    """All processes: BMTrain makes others for pipelines and tensor parallelism only."""

    def __init__(self, unique_id: bytes, world_size: int, rank: int) -> None:
        assert world_size == (dist.get_world_size() if dist.is_initialized() else 1)
        self.world_size, self.rank = world_size, rank


def _tensor(storage: Any) -> torch.Tensor:
    return torch.tensor([], dtype=storage.dtype).set_(storage)


def _reduced(source: Any, how: str, comm: _Communicator) -> torch.Tensor:
    values = _tensor(source)
    if comm.world_size == 1:
        return values
    half = values.dtype in (torch.half, torch.bfloat16)
    total = values.float() if half else values.clone()
    dist.all_reduce(total, getattr(dist.ReduceOp, REDUCTIONS[how]))
    return (total / comm.world_size if how == "avg" else total).to(values.dtype)


def _all_reduce(source: Any, target: Any, how: str, comm: _Communicator) -> None:
    _tensor(target).copy_(_reduced(source, how, comm))


def _reduce_scatter(source: Any, target: Any, how: str, comm: _Communicator) -> None:
    assert source.size() == target.size() * comm.world_size
    _tensor(target).copy_(_reduced(source, how, comm).chunk(comm.world_size)[comm.rank])


def _all_gather(source: Any, target: Any, comm: _Communicator) -> None:
    assert source.size() * comm.world_size == target.size()
    own, parts = _tensor(source), _tensor(target).chunk(comm.world_size)
    if comm.world_size == 1:
        parts[0].copy_(own)
    else:  # as bytes: gloo does not know every dtype
        dist.all_gather([part.view(torch.uint8) for part in parts], own.view(torch.uint8))


NCCL = {
    "getUniqueId": lambda: bytes(8),
    "commInitRank": _Communicator,
    "commCount": lambda comm: comm.world_size,
    "commRank": lambda comm: comm.rank,
    "groupStart": lambda: None,
    "groupEnd": lambda: None,
    "allReduce": _all_reduce,
    "reduceScatter": _reduce_scatter,
    "allGather": _all_gather,
}


def install() -> None:
    """Import BMTrain in this process, for CPUs; for good."""
    sys.modules["bmtrain.C"] = types.ModuleType("bmtrain.C")
    nccl = importlib.import_module("bmtrain.nccl")
    for name, value in vars(nccl).copy().items():
        if isinstance(value, types.FunctionType):
            vars(nccl)[name] = NCCL.get(name)  # None for what has no double: to call it is an error
    proxy = _torch()
    for name, module in list(sys.modules.items()):
        if name.startswith("bmtrain.") and vars(module).get("torch") is torch:
            vars(module)["torch"] = proxy
    for name in ("record_stream", "pin_memory"):
        setattr(torch.Tensor, name, lambda tensor, stream=None: tensor)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    install()
    from cpm_tune.commands.cli import main

    sys.exit(main(sys.argv[1:]))
