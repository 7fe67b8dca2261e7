"""Which process of how many this is, from the environment that torchrun or slurm sets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from cpm_tune.errors import UserError


@dataclass(frozen=True)
class RankInfo:
    """`local_rank` counts the processes of this machine; -1 for a single process. `slurm`: srun
    started them, which may show each its own GPUs alone."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = -1
    slurm: bool = False


def rank_info(environment: Mapping[str, str]) -> RankInfo:
    """The rank in torchrun's variables; without them, in those of a step of `srun` with several
    tasks, if MASTER_ADDR and MASTER_PORT are set. Raises UserError for variables that are wrong."""

    def number(name: str, default: str) -> int:
        value = environment.get(name, default)
        if not (value.isascii() and value.isdigit()):
            raise UserError(
                f"the environment has {name}={value}, expected a whole number as torchrun sets it; "
                "unset it to run one process."
            )
        return int(value)

    if (world_size := number("WORLD_SIZE", "1")) > 1 and "RANK" in environment:
        if (rank := number("RANK", "0")) >= world_size:
            raise UserError(
                f"the environment has RANK={rank} and WORLD_SIZE={world_size}, expected a rank "
                f"from 0 to {world_size - 1} as torchrun sets it; unset both to run one process."
            )
        return RankInfo(rank, world_size, number("LOCAL_RANK", "0"))
    tasks = number("SLURM_STEP_NUM_TASKS", "1")
    if tasks > 1 and "MASTER_ADDR" in environment and "MASTER_PORT" in environment:
        return RankInfo(number("SLURM_PROCID", "0"), tasks, number("SLURM_LOCALID", "0"), True)
    return RankInfo()


def launched() -> bool:
    """Whether this process is already one of several."""
    return rank_info(os.environ).world_size > 1


def end_with_parent(parent: int) -> None:
    """Get SIGTERM when `parent`, the process that started this one, ends in any way (Linux)."""
    import ctypes
    import signal
    import sys

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it has already ended
            os.kill(os.getpid(), signal.SIGTERM)
