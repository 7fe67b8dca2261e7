"""Options of `bench`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cpm_tune.bench.options import SuiteOptions, TaskList
from cpm_tune.commands.arguments import CommandLine
from cpm_tune.common.option import Option
from cpm_tune.errors import UserError
from cpm_tune.schema.options import (
    Controls,
    Count,
    ExecutionOptions,
    Natural,
    NotInFile,
    ReportOptions,
    Settings,
)


@dataclass(frozen=True, kw_only=True)
class Bench(CommandLine, ReportOptions, ExecutionOptions, SuiteOptions):
    """Run every combination of tasks, deltas, backbones and seeds; skip finished runs.

    Options win over the suite file.

    examples:
      tune.py bench --tasks ccpm,clozet --deltas lora,prefix --seeds 1,2 --jobs 2
      tune.py bench --tasks cuge-lite --deltas lora,adapter,prefix --seeds 1,2,3 --dry-run
      tune.py bench --suite SUITE --jobs 2
      tune.py bench --tasks ccpm --deltas lora --nproc 2
      tune.py bench --suite SUITE --only-failed

    exit codes: 0 every trial is finished; 1 some failed; 2 a mistake in the request; 130, 143 or
    138 interrupted. Repeat the command to resume, whatever stopped it.
    """

    tasks: TaskList = ()
    suite: Annotated[
        Path | None, Option("YAML or JSON file of a suite (docs/bench.md)", "FILE")
    ] = None
    settings: Settings = ()
    control: Controls = ()
    jobs: Annotated[
        Count | None, Option("processes at a time", default="those of the largest trial")
    ] = None
    dry_run: Annotated[NotInFile, Option("print the plan and every trial")] = False
    only_failed: Annotated[bool, Option("run only what failed before")] = False
    executor: Annotated[Literal["local", "ray", "slurm"], Option("where trials run")] = "local"
    ray_address: Annotated[
        str | None, Option("Ray cluster", "ADDRESS", default="the running one, or a new one")
    ] = None
    cpus_per_process: Annotated[
        Count | None, Option("CPUs per process (Ray and Slurm)", default="1")
    ] = None
    gpus_per_process: Annotated[
        Natural | None,
        Option(
            "GPUs per process (Ray and Slurm)", default="on Ray 1 if the cluster has any, else 0"
        ),
    ] = None
    slurm: Annotated[
        tuple[str, ...],
        Option("of each job, such as partition=gpu or time=240 (minutes); repeatable", "KEY=VALUE"),
    ] = ()

    def __post_init__(self) -> None:
        if not self.tasks and self.suite is None:
            raise UserError("give --tasks or --suite.")
        needs = {
            "ray_address": ("ray",),
            "cpus_per_process": ("ray", "slurm"),
            "gpus_per_process": ("ray", "slurm"),
            "slurm": ("slurm",),
        }
        for name, executors in needs.items():
            if getattr(self, name) not in (None, ()) and self.executor not in executors:
                wanted = " or ".join(f"--executor {executor}" for executor in executors)
                raise UserError(f"--{name.replace('_', '-')} needs {wanted}.")
