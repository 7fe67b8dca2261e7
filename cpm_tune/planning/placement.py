"""Checks that engine, sharding, memory limit and 8-bit weights are compatible."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cpm_tune.backbone.quantize import check_int8
from cpm_tune.delta.config import DeltaConfig
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Execution


def placement(
    execution: Execution,
    delta: DeltaConfig | None,
    precision: str,
    quantize: str | None,
    *,
    random: bool = False,
) -> Iterator[str]:
    """Yield one sentence per conflict. `delta` is None if it is not known; `random`: the backbone's
    weights are random."""
    whole = delta is not None and delta.delta_type == "full"
    divided = execution.shard or execution.offload
    bmtrain = execution.engine == "bmtrain"
    if bmtrain and execution.shard:
        yield "run.shard is for the torch engine; --engine bmtrain always shards: omit it."
    if not bmtrain and execution.zero != Execution().zero:
        yield "run.zero only has an effect with --engine bmtrain."
    if bmtrain and whole and precision != "fp32":
        yield (
            f"full fine-tuning with --engine bmtrain and --precision {precision}: trained "
            "values are fp32; use --precision fp32, another delta, or --engine torch."
        )
    if whole and divided and not bmtrain:
        yield (
            "run.shard and run.offload are for a frozen backbone, but full fine-tuning trains it; "
            "use another delta, or --engine bmtrain."
        )
    if execution.auto_batch and (divided or bmtrain):
        yield (
            "run.auto_batch cannot be combined with run.shard, run.offload or --engine bmtrain, "
            "whose processes make every pass together."
        )
    if execution.memory_limit and (divided or bmtrain):
        yield (
            "run.memory_limit cannot be combined with run.shard, run.offload or --engine bmtrain; "
            "choose one of them."
        )
    if execution.memory_limit and quantize:
        yield (
            "--memory-limit cannot be combined with 8-bit weights (--quantize, or a run that was "
            "tuned with it): its layers are read in the file's precision; omit one of them."
        )
    if execution.memory_limit and random:
        yield "--memory-limit: random weights are not read from files; omit it."
    if quantize is None:
        return
    if quantize != "int8":
        yield f"quantize is {quantize!r}, expected int8."
        return
    if whole:
        yield "--quantize is for a frozen backbone, but full fine-tuning trains it; omit it."
    if divided or bmtrain:
        yield "--quantize cannot be combined with run.shard, run.offload or --engine bmtrain."
    try:
        check_int8()
    except UserError as error:
        yield str(error)


def check_placement(*given: Any, **named: Any) -> None:
    """Raise UserError with all conflicts of `placement`, one per line, if there are any."""
    if problems := list(placement(*given, **named)):
        raise UserError("\n".join(problems))
