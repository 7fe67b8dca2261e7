"""Options of the command without a name."""

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
    Settings,
    TaskNames,
)


@dataclass(frozen=True, kw_only=True)
class Tune(CommandLine, ReportOptions, ExecutionOptions, RunOptions):
    """Tune a delta on a frozen CPM-Ant backbone for one task: train, select on dev, score on test,
    record.

    examples:
      tune.py --task lcqmc --delta lora
      tune.py --task lcqmc --delta lora --data DIR --backbone DIR --seed 1 --set train.lr=1e-3
      tune.py --task lcqmc --delta lora --control random-backbone
      tune.py --task lcqmc --delta lora --dry-run
      tune.py --task lcqmc --delta lora --nproc 2
      tune.py list tasks
      tune.py list deltas
      tune.py show lcqmc
      tune.py predict results/RUN --data DIR --submission
      tune.py doctor
      tune.py leaderboard results

    exit codes: 0 finished; 2 a mistake in the request; 1 any other failure; 130, 143 or 138
    stopped by Ctrl-C, SIGTERM or SIGUSR1; 75 a process of --nproc was killed (repeat the command
    to resume).
    """

    task: TaskNames = ""
    settings: Settings = ()
    config: Annotated[
        Path | None, Option("YAML or JSON file with options", "FILE", in_file=False)
    ] = None
    control: Controls = ()
    nproc: Annotated[
        Count, Option("processes on this machine, each with its own GPU or its share of the cores")
    ] = 1
    nnodes: Annotated[Count, Option("machines; run the command on each")] = 1
    rendezvous: Annotated[
        str | None, Option("host and free port of one of the machines", "HOST:PORT")
    ] = None
    forgetting: Annotated[
        bool,
        Option("measure on plain texts what the run forgot, as the command forgetting does"),
    ] = False
    out: Results = Path("results")
    overwrite: Annotated[NotInFile, Option("run again even if the run is finished")] = False
    resume: Annotated[bool, Option("resume an unfinished run (default)", in_file=False)] = True
    dry_run: Annotated[NotInFile, Option("print the plan; with --json, all of it")] = False
    # Of several tasks, the one that a process of --nproc runs.
    only: Annotated[str | None, Option(hidden=True, in_file=False)] = None
