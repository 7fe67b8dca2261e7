"""Which process of how many this is, by the environment that torchrun or slurm made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """`local_rank` counts the processes of this machine; -1 where there is one process only."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = -1


def place(environment: Mapping[str, str]) -> Place:
    """The place that torchrun's variables give; without them those of a step of `srun` with
    several tasks, if MASTER_ADDR and MASTER_PORT are set."""
    if int(environment.get("WORLD_SIZE", "1")) > 1 and "RANK" in environment:
        rank, world_size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        return Place(rank, world_size, int(environment.get("LOCAL_RANK", "0")))
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks > 1 and "MASTER_ADDR" in environment and "MASTER_PORT" in environment:
        return Place(int(environment["SLURM_PROCID"]), tasks, int(environment["SLURM_LOCALID"]))
    return Place()


def launched() -> bool:
    """Whether this process is one of several already."""
    return place(os.environ).world_size > 1


def end_with_parent(parent: int) -> None:
    """Get SIGTERM when the process that started this one, `parent`, is gone, however it ended
    (Linux)."""
    import ctypes
    import signal
    import sys

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it was gone already
            os.kill(os.getpid(), signal.SIGTERM)
