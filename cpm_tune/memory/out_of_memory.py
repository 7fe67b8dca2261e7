"""What is said when a run does not fit: one sentence with the settings that would."""

from __future__ import annotations

import contextlib
import re
import resource
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cpm_tune.engine import Engine
from cpm_tune.engine.device import is_out_of_memory
from cpm_tune.errors import UserError
from cpm_tune.memory.estimate import Work, estimate, work_of
from cpm_tune.planning.plan import Plan

_SMALLEST = 256  # run.micro_tokens
_CGROUP = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def memory_trouble(plan: Plan, engine: Engine) -> Iterator[None]:
    """Raise UserError where memory gives out, of the device or of the host."""

    free = room(engine)
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold what filled the memory
        raise UserError(sentence(plan, engine, free)) from None


def room(engine: Engine) -> int | None:
    """Bytes that this process could still take, as far as the system says."""
    if engine.device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(engine.device)[0])
    found = [n for n in (_available(), _address_space(), _cgroup()) if n is not None]
    return min(found, default=None)


def _number(path: str, name: str) -> int | None:
    with contextlib.suppress(OSError):
        known = re.search(rf"^{name}:\s*(\d+) kB", Path(path).read_text(), re.MULTILINE)
        return 1024 * int(known[1]) if known else None
    return None


def _available() -> int | None:
    return _number("/proc/meminfo", "MemAvailable")


def _address_space() -> int | None:
    limit, used = resource.getrlimit(resource.RLIMIT_AS)[0], _number("/proc/self/status", "VmSize")
    return None if limit == resource.RLIM_INFINITY or used is None else max(0, limit - used)


def _cgroup() -> int | None:
    with contextlib.suppress(OSError, ValueError):  # a limit of "max" is none
        limit = int((_CGROUP / "memory.max").read_text())
        return max(0, limit - int((_CGROUP / "memory.current").read_text()))
    return None


def sentence(plan: Plan, engine: Engine, free: int | None) -> str:
    """What to say; `free` were the bytes before the run."""
    of = "the GPU" if engine.device.type == "cuda" else "this machine"
    try:
        needed, fits = _fitting(plan, engine, free)
    except (RuntimeError, MemoryError):  # no room left to look for it
        needed, fits = None, None
    said = f"out of memory of {of}"
    if free is not None and needed is not None:
        said += f" ({_size(free)} were free, about {_size(needed)} are needed in each process)"
    if fits is None:
        return (
            f"{said}; lower run.micro_tokens or train.batch_size, add --checkpointing, or divide "
            "the backbone over more processes (--shard --nproc N)."
        )
    how, then = fits
    return f"{said}; with {how} it would be about {_size(then)}, and the same result."


def _size(n: int) -> str:
    return f"{n / 2**30:.1f} GiB" if n >= 2**30 else f"{n / 2**20:.0f} MiB"


def _fitting(plan: Plan, engine: Engine, free: int | None) -> tuple[int, tuple[str, int] | None]:
    """The estimate of what was tried; and of the changes that keep the result the least that fits,
    with its own."""

    work = work_of(plan, engine.world_size, gpu=engine.device.type == "cuda")
    needed = estimate(work).peak
    enough = 0.8 * needed if free is None else min(0.9 * free, 0.8 * needed)
    for how, changed in _changes(work):
        then = estimate(changed).peak
        if then <= enough:
            return needed, (how, then)
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
    if work.bmtrain or work.quantize is not None or work.delta.delta_type == "full":
        return
    for nproc in (2, 4, 8, 16, 32) if not work.execution.shard else ():
        if nproc > work.nproc and work.gpu:
            shared = replace(_with(work, shard=True, **again), nproc=nproc)
            yield f"--shard --nproc {nproc} {how}", shared
    if work.gpu:
        yield f"--offload {how}", _with(work, offload=True, **again)


def _with(work: Work, **changes: object) -> Work:
    return replace(work, execution=work.execution.model_copy(update=changes))
