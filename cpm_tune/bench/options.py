"""The options that a suite of `bench` has, on the command line and in its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cpm_tune.common.option import Option
from cpm_tune.schema.options import BUNDLED, Count, Fold, Results, Seed, TrialOptions

TaskList = Annotated[
    tuple[str, ...], Option("tasks and task groups of `list tasks`", "A,B", commas=True)
]


@dataclass(frozen=True, kw_only=True)
class Axes:
    """The axes of a suite: its trials are their product."""

    tasks: TaskList
    deltas: Annotated[
        tuple[str, ...], Option("deltas of `list deltas`, or JSON files", "A,B", commas=True)
    ] = ("lora",)
    seeds: Annotated[
        tuple[Seed, ...], Option("seeds, such as 1,2 or 1-3", "N,N", commas=True, ranges=True)
    ] = (1,)
    folds: Annotated[
        tuple[Fold, ...],
        Option(
            "folds of train and dev, such as 0-4: the files train_N and dev_N, as of FewCLUE",
            "N,N",
            commas=True,
            ranges=True,
            default="train and dev",
        ),
    ] = ()
    backbones: Annotated[
        tuple[str, ...], Option("names or folders of backbones", "A,B", commas=True)
    ] = (BUNDLED,)


@dataclass(frozen=True, kw_only=True)
class SuiteOptions(TrialOptions, Axes):
    """The axes of a suite, and what all its trials share."""

    nproc: Annotated[
        Count,
        Option("processes of each trial, each with its own GPU or its share of the cores"),
    ] = 1
    out: Results = Path("results")
