"""Parts of a record that every way to make a run writes alike."""

from __future__ import annotations

import datetime
import platform

import torch

from cpm_tune.common.energy import RunMeter
from cpm_tune.common.environment import git_state, gpu, package_versions, peak_memory_bytes
from cpm_tune.data.splits import edition
from cpm_tune.data.store import Split
from cpm_tune.engine.engine import Engine
from cpm_tune.schema.record import EnvironmentRecord, SplitRecord
from cpm_tune.task import Task
from cpm_tune.tuning.score import Scored


def environment_record(engine: Engine, meter: RunMeter, deterministic: bool) -> EnvironmentRecord:
    """Where a run was made, and what it took since its meter was made."""
    sha, dirty = git_state()
    return EnvironmentRecord(
        packages=package_versions(),
        python=platform.python_version(),
        git_sha=sha,
        git_dirty=dirty,
        device=str(engine.device),
        engine=engine.name,
        world_size=engine.world_size,
        threads=torch.get_num_threads(),
        deterministic=deterministic,
        peak_memory_bytes=peak_memory_bytes(engine.device),
        gpu=gpu(engine.device),
        seconds=meter.seconds(),
        energy_joules=meter.joules(),
        finished_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def split_record(task: Task, split: Split, n_whole: int, scored: Scored | None) -> SplitRecord:
    """What was read of a split, and what its scoring counted; `n_whole`: the rows of its file."""
    file = split.file
    return SplitRecord(
        path=", ".join(map(str, file.paths)),
        sha256=file.sha256,
        n=len(split),
        n_skipped=split.n_skipped,
        n_truncated=scored.n_truncated if scored else None,
        n_unparsed=scored.n_unparsed if scored else 0,
        n_shots_dropped=scored.n_shots_dropped if scored else 0,
        labelled=split.labelled,
        edition=edition(task, file, n_whole),
    )
