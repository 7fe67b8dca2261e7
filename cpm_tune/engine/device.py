"""The device and the dtypes of a process."""

from __future__ import annotations

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


def choose_device(wanted: str, local_rank: int) -> torch.device:
    """The device that `run.device` names; every process of a machine gets its own GPU.

    Raises UserError for an invalid name, or a device that does not exist.
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
    if device.type == "cuda" and local_rank >= 0:
        if device.index is not None:
            raise UserError(f"run.device is '{wanted}', expected cuda: each process has its own.")
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"{local_rank + 1} processes on this machine, but torch sees "
                f"{torch.cuda.device_count()} CUDA devices; lower --nproc."
            )
        device = torch.device("cuda", local_rank)
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
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python could not allocate memory, on a device or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in message for words in _NO_MEMORY)
