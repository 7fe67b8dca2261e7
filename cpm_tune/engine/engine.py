"""Where and how tensors run. Nothing outside this folder knows which engine it is.

`pytorch` runs one or several processes, `sharded` divides the backbone over them, `bmtrain` does so
with ZeRO-3; `launch` starts several processes.
"""

from __future__ import annotations

import torch

from cpm_tune.common.door import load
from cpm_tune.engine.bmtrain_found import trouble
from cpm_tune.engine.device import choose_device
from cpm_tune.engine.pytorch import TorchEngine, join_group
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Execution

Engine = TorchEngine  # every other engine is derived from it


def make_engine(execution: Execution, precision: str) -> Engine:
    """Return the engine for these settings; raise UserError if the machine cannot run them.

    Under torchrun (or `launch`) this process joins its group.
    """
    bmtrain = execution.engine == "bmtrain"
    if bmtrain and (problem := trouble()) is not None:
        raise UserError(f"--engine bmtrain: {problem[0]}; {problem[1]}.")
    # With BMTrain, tensors go by its own NCCL: the group is for objects and counts.
    process = join_group("cpu" if bmtrain else execution.device)
    if execution.threads:
        torch.set_num_threads(execution.threads)
    device = choose_device(execution.device, process.local_rank, own_devices=process.slurm)
    if bmtrain:
        kind = load("cpm_tune.engine.bmtrain:BMTrainEngine")
        return kind(device, precision, process, execution)
    if execution.shard or execution.offload:
        if process.world_size == 1 and not execution.offload:
            raise UserError(
                "--shard divides the backbone over several processes, but there is one; add "
                "--nproc N (or --offload, which keeps it in host memory)."
            )
        if process.world_size == 1:
            kind = load("cpm_tune.engine.offloaded:OffloadedEngine")
            return kind(device, precision, process, execution.checkpointing)
        kind = load("cpm_tune.engine.sharded:ShardedEngine")  # FSDP2's import takes half a second
        return kind(
            device,
            precision,
            process,
            checkpointing=execution.checkpointing,
            offload=execution.offload,
        )
    return TorchEngine(
        device,
        precision,
        process,
        checkpointing=execution.checkpointing,
        splits_on_oom=execution.auto_batch,
    )
