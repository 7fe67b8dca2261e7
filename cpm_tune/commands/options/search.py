"""Options of `search`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cpm_tune.commands.arguments import CommandLine
from cpm_tune.common.option import Option
from cpm_tune.schema.options import (
    Controls,
    Count,
    ExecutionOptions,
    NotInFile,
    ReportOptions,
    Results,
    RunOptions,
    Seed,
    Settings,
    TaskName,
)


@dataclass(frozen=True, kw_only=True)
class Search(CommandLine, ReportOptions, ExecutionOptions, RunOptions):
    """Search for settings on dev, then score the best ones on test, once.

    Trials train and are scored on dev; the median of earlier trials ends bad ones early. A space is
    low..high, log:low..high or a,b,c. Needs optuna (the extra search).

    examples:
      tune.py search --task lcqmc --delta lora
      tune.py search --task lcqmc --delta lora --space train.lr=log:1e-4..1e-2
      tune.py search --task lcqmc --delta lora --trials 12 --space delta.lora_r=4,8,16
      tune.py search --task lcqmc --delta lora --trials 50 --seconds 3600 --seeds 1-3
      tune.py search --task lcqmc --delta lora --dry-run
      tune.py search --config results/RUN/run.json

    exit codes: 0 finished; 2 a mistake in the request, or no trial finished; 1 any other failure;
    130, 143 or 138 interrupted. Repeat the command to resume, with more --trials to go on.
    """

    task: TaskName = ""
    space: Annotated[
        tuple[str, ...],
        Option(
            "setting and its values; repeatable",
            "KEY=VALUES",
            default="train.lr from a tenth to ten times its own; for lora, adapters and prefix "
            "also half and twice the size",
            in_file=False,
        ),
    ] = ()
    trials: Annotated[Count, Option("most trials, failed and pruned ones included")] = 20
    seconds: Annotated[Count | None, Option("begin no trial after so many seconds of trials")] = (
        None
    )
    prune: Annotated[
        bool, Option("end a trial that is worse than the median of earlier ones (default)")
    ] = True
    seeds: Annotated[
        tuple[Seed, ...],
        Option(
            "seeds of runs with the best settings, such as 1-3; --seed is the search's",
            "N,N",
            commas=True,
            ranges=True,
            default="--seed",
        ),
    ] = ()
    settings: Settings = ()
    config: Annotated[
        Path | None,
        Option("YAML or JSON file with options, or the record of a run", "FILE", in_file=False),
    ] = None
    control: Controls = ()
    nproc: Annotated[
        Count, Option("processes of each trial on this machine; trials are one after the other")
    ] = 1
    out: Results = Path("results")
    dry_run: Annotated[NotInFile, Option("print the plan; with --json, all of it")] = False
