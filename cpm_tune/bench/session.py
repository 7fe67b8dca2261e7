"""What the `bench` command does: plan, print, run, report."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cpm_tune.bench import show
from cpm_tune.bench.processes import Processes
from cpm_tune.bench.ray_cluster import RayActors
from cpm_tune.bench.schedule import Executor, run_trials
from cpm_tune.bench.slurm import MOST_JOBS, SlurmJobs
from cpm_tune.bench.state import History, SuiteState, note_trials, suite_state, trial_state
from cpm_tune.bench.suite import Suite
from cpm_tune.bench.trials import Trial, make_trials
from cpm_tune.common.events import emit, listening
from cpm_tune.common.folders import check_results
from cpm_tune.common.interrupt import Interrupted, Interrupts
from cpm_tune.common.sizes import counted
from cpm_tune.errors import UserError
from cpm_tune.planning.settings import in_file

FINISHED, FAILED = 0, 1


@dataclass(frozen=True)
class Cluster:
    """The address of a Ray cluster, or `slurm`, the settings of Slurm's jobs; and the resources of
    each process of a trial on it. `gpus`: None for one, if a Ray cluster has any and the trials do
    not run on CPUs."""

    address: str | None = None
    cpus: int = 1
    gpus: int | None = None
    slurm: Mapping[str, str] | None = None


def bench(
    suite: Suite,
    *,
    where: str = "",
    jobs: int = 0,
    cluster: Cluster | None = None,
    dry_run: bool = False,
    only_failed: bool = False,
    quiet: bool = False,
) -> int:
    """Run a suite; return 0 if every trial is finished, 1 if some failed.

    `where` is the suite's file, if it has one. `jobs` processes run at a time, on this machine or
    with `cluster` on Ray or Slurm (0: those of the largest trial, or as many as fit). Finished
    trials are not run again. Raises UserError, before anything runs, for every mistake, and
    Interrupted after a signal that ends the command.
    """
    out = suite.out
    with in_file(where, suite.settings):
        trials = make_trials(suite)
    state, history = suite_state(out, trials, only_failed), History(out)
    largest = max(state.todo, key=lambda trial: trial.nproc, default=None)
    nproc = 1 if largest is None else largest.nproc
    if largest is not None and 0 < jobs < nproc:
        raise UserError(
            f"--jobs {jobs}: a trial of {nproc} processes ({largest.name}) does not fit. Give "
            f"--jobs {nproc} or more, or a smaller nproc."
        )
    workers = min(jobs or nproc, sum(trial.nproc for trial in state.todo) or 1)
    where = f"{workers} process" + "es" * (workers > 1)
    if cluster is not None:
        if cluster.slurm is not None or all(_on_cpu(trial) for trial in state.todo):
            cluster = replace(cluster, gpus=cluster.gpus or 0)
        gpus = "1 GPU if it has any" if cluster.gpus is None else f"{cluster.gpus} GPU"
        on = "Ray" if cluster.slurm is None else "Slurm"
        where = f"on {on}, {cluster.cpus} CPU and {gpus} per process"
    check_results(out)
    if state.todo and not dry_run:
        _make(out)
    if dry_run and listening():
        emit("plan", **show.plan_values(state, history, out, workers))
        return FINISHED
    if not quiet or dry_run:
        print(show.plan_text(state, history, out, where, workers), flush=True)
    if dry_run:
        print(show.trial_list(state, history))
        return FINISHED
    if not state.todo:
        return _nothing(state)

    lines = not (quiet or sys.stderr.isatty())

    def start() -> Executor:
        if cluster is None:
            return Processes(out, workers, lines)
        if cluster.slurm is not None:
            most = jobs or min(MOST_JOBS, sum(trial.nproc for trial in state.todo))
            asked = cluster.cpus, cluster.gpus or 0
            return SlurmJobs(out, most, *asked, cluster.slurm, lines)
        how = cluster.address, cluster.cpus, cluster.gpus
        return RayActors(out, jobs, *how, nproc, lines)

    return _run(start, state, history, out, quiet)


def _on_cpu(trial: Trial) -> bool:
    return (trial.request.settings or {}).get("run.device") == "cpu"


def _make(out: Path) -> None:
    """Make the results folder before the plan is printed: what is wrong with it comes first."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        why = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise UserError(f"--out {out}: cannot be written ({why}); choose another.") from error


def _nothing(state: SuiteState) -> int:
    """The exit code if there is nothing to do, and why, unless every trial is done."""
    if left := len(state.trials) - state.done:
        print(f"no trial failed before; {left} are not finished: run without --only-failed.")
    return FAILED if left else FINISHED


def _run(
    start: Callable[[], Executor], state: SuiteState, history: History, out: Path, quiet: bool
) -> int:
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        try:
            with Interrupts():
                executor = start()
                stack.callback(executor.stop)
                note_trials(out, state.trials)
                watcher = show.watcher(state.todo, history, out, executor.workers, quiet)
                with watcher:
                    endings = run_trials(state.todo, executor, out, watcher)
        except Interrupted as stop:
            print("stopping; a second interrupt does not wait", file=sys.stderr, flush=True)
            left = counted(sum(trial_state(out, t)[0] != "done" for t in state.todo), "trial")
            kept = f"finished runs are kept; {left} left, repeat the command to resume"
            raise Interrupted(stop.number, kept) from stop
    print(show.end_text(endings, state, out, time.monotonic() - started), flush=True)
    return FAILED if any(ending.record is None for ending in endings) else FINISHED
