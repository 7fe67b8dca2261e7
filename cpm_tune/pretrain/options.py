"""The options of `pretrain run`, which its folder keeps as well; light."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cpm_tune.common.option import Option
from cpm_tune.schema.options import Count, Natural

Size = Annotated[int, Option(metavar="N", least=1, most=2**20)]
# fp32 has room for it to spare.
Positive = Annotated[float, Option(metavar="X", above=0, most=1e30)]
Minutes = Annotated[float, Option(metavar="X", least=0)]


@dataclass(frozen=True)
class PretrainRequest:
    """Options of `pretrain run`; None leaves the default of `Settings` or `Intervals`."""

    out: Annotated[Path, Option("folder of the run", "DIR")]
    resume: Annotated[bool, Option("resume from the checkpoint in --out")] = False
    corpus: Annotated[Path | None, Option("corpus folder of `pretrain prepare`", "DIR")] = None
    config: Annotated[
        Path | None, Option("JSON file of a config: start from random weights", "FILE")
    ] = None
    backbone: Annotated[
        Path | None,
        Option("backbone to start from", "NAME|DIR", not_with=("config",)),
    ] = None
    steps: Annotated[Count | None, Option("length of the run in optimiser steps")] = None
    seconds: Annotated[
        Positive | None, Option("length of the run in seconds of training", not_with=("steps",))
    ] = None
    weights: dict[str, float] = field(default_factory=dict)
    rows: Annotated[Size | None, Option("rows per step", default="16")] = None
    width: Annotated[Size | None, Option("tokens per row", default="256")] = None
    shortest: Annotated[Size | None, Option("fewest tokens of a piece", default="32")] = None
    lr: Annotated[Positive | None, Option("peak learning rate", default="3e-3")] = None
    last_lr: Annotated[
        float | None,
        Option("last learning rate, as a share of the peak", "X", 0, 1, default="0.03"),
    ] = None
    warmup: Annotated[Natural | None, Option("steps of warm-up", default="100")] = None
    optimiser: Annotated[Literal["muon", "adamw"] | None, Option("optimiser", default="muon")] = (
        None
    )
    weight_decay: Annotated[float | None, Option("weight decay", "X", 0, default="0.05")] = None
    seed: Annotated[
        Natural | None,
        Option("seed of initialisation, masks and order", most=2**63 - 1, default="1"),
    ] = None
    precision: Annotated[
        Literal["bf16", "fp32"] | None, Option("precision of activations", default="bf16 autocast")
    ] = None
    no_compile: Annotated[bool, Option("do without torch.compile")] = False
    threads: Annotated[
        int | None, Option("CPU threads", "N", 1, 1024, default="PyTorch's choice")
    ] = None
    log_steps: Annotated[Count | None, Option("steps between log entries", default="50")] = None
    checkpoint_minutes: Annotated[
        Minutes | None, Option("minutes between checkpoints", default="5")
    ] = None
    heldout_minutes: Annotated[
        Minutes | None, Option("minutes between evaluations on held-out text", default="10")
    ] = None
