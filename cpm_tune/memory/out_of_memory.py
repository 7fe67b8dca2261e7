"""The error of a run that does not fit into memory: one sentence with settings that would fit."""

from __future__ import annotations

import contextlib
import mmap
import re
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cpm_tune.common.environment import address_space_limit
from cpm_tune.engine.device import is_out_of_memory
from cpm_tune.engine.engine import Engine
from cpm_tune.errors import UserError
from cpm_tune.memory.estimate import Work, estimate, work_of
from cpm_tune.planning.inputs import Inputs
from cpm_tune.planning.plan import Plan

_SMALLEST = 256  # run.micro_tokens
_RESERVE = 64 * 2**20  # bytes of address space
_USUAL = 5_000_000  # trained values: fewer are not worth an estimate before the run
_CGROUP = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def memory_trouble(plan: Plan, inputs: Inputs) -> Iterator[None]:
    """Raise UserError if memory runs out, of the device or of the host."""
    free, reserve = free_memory(inputs.engine), _reserve()
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they refer to what filled the memory
        if reserve is not None:
            reserve.close()
        raise UserError(_message(plan, inputs, free, reserve is not None)) from None
    finally:
        if reserve is not None:
            reserve.close()


def _reserve() -> mmap.mmap | None:
    """Address space, without memory, that is given up to find out what would fit: at the limit of
    its address space a process takes minutes for that. None if there is not enough of it."""
    try:
        return mmap.mmap(-1, _RESERVE)
    except OSError:
        return None


def check_memory(plan: Plan, inputs: Inputs) -> None:
    """Raise UserError for a run on a CPU that needs more memory than the whole machine has, such as
    one of a mistyped size: the system would kill it without a word.

    Estimated for one pass of training of the smallest size that the plan allows.
    """
    engine, skeleton = inputs.engine, inputs.skeleton
    total = _least(_number("/proc/meminfo", "MemTotal"), _address_space(), _cgroup())
    if engine.device.type != "cpu" or skeleton.n_trained < _USUAL or total is None:
        return
    work = work_of(plan, skeleton, engine.world_size)
    tokens = work.examples * work.sequences * work.length
    tokens = _SMALLEST if plan.execution.auto_batch else tokens
    needed = estimate(_with(work, micro_tokens=tokens)).peak
    if needed <= total:
        return
    way_out = f"give the delta a smaller size (it would train {skeleton.n_trained:,} values)."
    for how, changed in _changes(work):
        if (reduced := estimate(changed).peak) <= 0.9 * total:
            way_out = f"{how} needs about {_size(reduced)}, with the same result."
            break
    raise UserError(
        f"this run needs about {_size(needed)} of memory, more than the {_size(total)} of this "
        f"machine; {way_out}"
    )


def free_memory(engine: Engine) -> int | None:
    """Bytes that this process can still allocate, as far as the system reports."""
    if engine.device.type == "cuda":
        import torch

        free = torch.cuda.mem_get_info(engine.device)[0]
        kept = torch.cuda.memory_reserved(engine.device)  # by torch's allocator, also if it is free
        return int(free + kept - torch.cuda.memory_allocated(engine.device))
    limits = (_number("/proc/meminfo", "MemAvailable"), _address_space(), _cgroup())
    return _least(*limits)


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _number(path: str, name: str) -> int | None:
    with contextlib.suppress(OSError):
        line = re.search(rf"^{name}:\s*(\d+) kB", Path(path).read_text(), re.MULTILINE)
        return 1024 * int(line[1]) if line else None
    return None


def _address_space() -> int | None:
    limit, used = address_space_limit(), _number("/proc/self/status", "VmSize")
    return None if limit is None or used is None else max(0, limit - used)


def _cgroup() -> int | None:
    with contextlib.suppress(OSError, ValueError):  # a limit of "max" is none
        limit = int((_CGROUP / "memory.max").read_text())
        return max(0, limit - int((_CGROUP / "memory.current").read_text()))
    return None


def _message(plan: Plan, inputs: Inputs, free: int | None, look: bool) -> str:
    """The error; `free` is the number of bytes before the run. `look` for settings that fit."""
    engine = inputs.engine
    needed, fits = None, None
    with contextlib.suppress(Exception):  # no memory left to look for them: an import may fail
        if look:
            needed, fits = _fitting(plan, inputs, free)
    message = f"out of memory on {'the GPU' if engine.device.type == 'cuda' else 'this machine'}"
    if free is not None and needed is not None:
        message += f" ({_size(free)} were free, each process needs about {_size(needed)})"
    if fits is None:
        return (
            f"{message}; lower run.micro_tokens or train.batch_size, add --checkpointing, or "
            "shard the backbone over more processes (--shard --nproc N)."
        )
    how, reduced = fits
    return f"{message}; {how} needs about {_size(reduced)}, with the same result."


def _size(n: int) -> str:
    return f"{n / 2**30:.1f} GiB" if n >= 2**30 else f"{n / 2**20:.0f} MiB"


def _fitting(plan: Plan, inputs: Inputs, free: int | None) -> tuple[int, tuple[str, int] | None]:
    """The estimate of what was tried; and, of the changes that keep the result, the smallest one
    that fits, with its estimate."""
    engine = inputs.engine
    gpu = engine.device.type == "cuda"
    work = work_of(plan, inputs.skeleton, engine.world_size, gpu)
    needed = estimate(work).peak
    enough = 0.8 * needed if free is None else min(0.9 * free, 0.8 * needed)
    for how, changed in _changes(work):
        reduced = estimate(changed).peak
        if reduced <= enough:
            return needed, (how, reduced)
    return needed, None


def _changes(work: Work) -> Iterator[tuple[str, Work]]:
    """Settings that leave the result as it is, the cheapest first."""
    tokens = min(work.execution.micro_tokens, work.batch_size * work.sequences * work.length)
    smaller = [1 << k for k in range(tokens.bit_length() - 1, 7, -1) if 1 << k >= _SMALLEST]
    for tokens in smaller:
        yield f"--set run.micro_tokens={tokens}", _with(work, micro_tokens=tokens)
    again = {"micro_tokens": smaller[-1] if smaller else _SMALLEST, "checkpointing": True}
    how = f"--checkpointing --set run.micro_tokens={again['micro_tokens']}"
    yield how, _with(work, **again)
    if work.bmtrain or work.quantize is not None or work.skeleton.delta.delta_type == "full":
        return
    for nproc in (2, 4, 8, 16, 32) if not work.execution.shard else ():
        if nproc > work.nproc and work.gpu:
            shared = replace(_with(work, shard=True, **again), nproc=nproc)
            yield f"--shard --nproc {nproc} {how}", shared
    if work.gpu:
        yield f"--offload {how}", _with(work, offload=True, **again)


def _with(work: Work, **changes: object) -> Work:
    return replace(work, execution=work.execution.model_copy(update=changes))
