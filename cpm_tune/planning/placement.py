"""What goes together in where and how the backbone is held: engines, shares, limits, 8 bits."""

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
    """Yield what does not go together in where and how the backbone is held; `random`: its weights
    are drawn."""
    whole = delta is not None and delta.delta_type == "full"
    divided = execution.shard or execution.offload
    bmtrain = execution.engine == "bmtrain"
    if bmtrain and execution.shard:
        yield "run.shard is the torch engine's; --engine bmtrain always divides: leave it out."
    if not bmtrain and execution.zero != Execution().zero:
        yield "run.zero has no effect but with --engine bmtrain."
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
            "run.auto_batch goes with neither run.shard, run.offload nor --engine bmtrain, whose "
            "passes are common to all processes."
        )
    if execution.memory_limit and (divided or bmtrain):
        yield (
            "run.memory_limit goes with neither run.shard, run.offload nor --engine bmtrain; "
            "choose one way to hold the backbone."
        )
    if execution.memory_limit and quantize:
        yield (
            "--memory-limit does not go with 8-bit weights (--quantize, or a run that was tuned "
            "with it): layers that come and go are as the file has them; leave one of them out."
        )
    if execution.memory_limit and random:
        yield "--memory-limit: random weights are drawn, not read; leave it out."
    if quantize is None:
        return
    if quantize != "int8":
        yield f"quantize is {quantize!r}, expected int8."
        return
    if whole:
        yield "--quantize is for a frozen backbone, but full fine-tuning trains it; leave it out."
    if divided or bmtrain:
        yield "--quantize goes with neither run.shard, run.offload nor --engine bmtrain."
    try:
        check_int8()
    except UserError as error:
        yield str(error)


def check_placement(*given: Any, **named: Any) -> None:
    """Raise UserError with what `placement` yields, a sentence a line, if there is anything."""
    if problems := list(placement(*given, **named)):
        raise UserError("\n".join(problems))
