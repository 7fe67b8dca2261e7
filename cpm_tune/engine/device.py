"""The device and the dtypes of a process."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from cpm_tune.errors import UserError

T = TypeVar("T")
# What a RuntimeError says, in small letters, when no memory could be allocated.
_NO_MEMORY = (
    "can't allocate memory",  # torch's allocator on a host
    "not enough memory",  # the same, on Windows
    "cannot allocate memory",  # the system: a file that could not be mapped, gloo's buffers
    "std::bad_alloc",  # C++ behind torch's back
    "bad allocation",
    "out of memory",  # CUDA, outside of torch's allocator; NCCL; the shared memory of processes
    "_alloc_failed",  # cuBLAS, cuDNN, cuSPARSE, cuSOLVER
    "memory allocation",  # MKL; CUDA's cudaErrorMemoryAllocation
    # oneDNN, which gives no reason; it has implementations for all that is asked of it here.
    "could not create a primitive",
    "could not create a memory",
    "could not execute a primitive",
)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}  # by precision


def choose_device(wanted: str, local_rank: int, *, own_devices: bool = False) -> torch.device:
    """The device that `run.device` names; every process of a machine gets its own GPU.

    A CUDA device has an index and is torch's current one from now on: events, random numbers,
    NCCL and FSDP2 go by that. With `own_devices` a process that sees one device has that for
    itself, as slurm gives them to its tasks. Raises UserError for an invalid name, or a device
    that does not exist.
    """
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
    if device.type != "cuda":
        return device
    index, seen = device.index, torch.cuda.device_count()
    if local_rank >= 0:
        if index is not None:
            raise UserError(f"run.device is '{wanted}', expected cuda: each process has its own.")
        index = 0 if own_devices and seen == 1 else local_rank
        if index >= seen:
            raise UserError(
                f"{local_rank + 1} processes on this machine, but torch sees {seen} CUDA devices; "
                "lower --nproc."
            )
    elif index is None:
        index = torch.cuda.current_device()
    elif index >= seen:
        raise UserError(
            f"run.device is '{wanted}', but torch sees {seen} CUDA device{'s' * (seen != 1)}, "
            "counted from cuda:0."
        )
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device


def unless_out_of_memory(attempt: Callable[[], T], may_split: bool) -> T | None:
    """What `attempt` returns; None if it ran out of memory and (`may_split`) a smaller one is to be
    tried. Whatever else it raises is raised."""
    try:
        return attempt()
    except (RuntimeError, MemoryError) as error:
        if not may_split or not is_out_of_memory(error):
            raise
    give_back()  # the error, which refers to what filled the memory, is gone
    return None


def give_back() -> None:
    """Return to the GPU what torch's allocator keeps of freed memory: of other sizes than what is
    tried next, or needed by libraries that allocate their own."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()


def is_device_lost(error: BaseException) -> bool:
    """Whether a CUDA device refused to compute, other than for lack of memory: after most such
    errors (an assertion in a kernel, an illegal access) every later call of the process fails."""
    lost = isinstance(error, torch.AcceleratorError) or "cuda error" in str(error).lower()
    return isinstance(error, RuntimeError) and lost and not is_out_of_memory(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python could not allocate memory, on a device or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in message for words in _NO_MEMORY)
