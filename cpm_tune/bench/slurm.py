"""Trials as jobs of a Slurm cluster, submitted through submitit: one job a trial, on one machine.

Results, data and backbones have to be in folders that every machine sees under the same path. A job
that reaches its time limit, or is taken back for another, is queued again by submitit and goes on
from the trial's last checkpoint. What submitit writes (functions and reports as pickles, and logs)
is in a new folder that only this user can read; it is deleted unless a job was lost.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpm_tune.bench.trials import Report, Trial
from cpm_tune.common.door import load
from cpm_tune.errors import UserError, did_you_mean

MOST_JOBS = 200  # processes of jobs that wait or run, unless --jobs says otherwise
_POLL = 0.2  # seconds between two looks at the jobs' folder
_TIMEOUTS = 1000  # how often a job may reach its time limit and go on
# What `--slurm` takes: the name that submitit has, and the type.
SETTINGS: dict[str, tuple[str, type]] = {
    "cluster": ("cluster", str),
    "time": ("timeout_min", int),
    "mem_gb": ("mem_gb", float),
    **{
        name: (f"slurm_{name}", str)
        for name in (
            *("partition", "account", "qos", "constraint", "comment", "exclude", "nodelist"),
            *("gres", "wckey", "mail_user", "mail_type"),
        )
    },
}


def parse_slurm(pairs: Sequence[str]) -> dict[str, str]:
    """The settings of `--slurm KEY=VALUE`; raise UserError for what is none."""
    values: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not value or "\n" in value:
            raise UserError(f"--slurm {pair!r}: expected KEY=VALUE, such as partition=gpu.")
        if key not in SETTINGS:
            raise UserError(
                f"--slurm {key}: not known; expected one of {', '.join(SETTINGS)}."
                f"{did_you_mean(key, SETTINGS)}"
            )
        try:
            SETTINGS[key][1](value)
        except ValueError as error:
            raise UserError(f"--slurm {pair}: expected a number.") from error
        values[key] = value
    if values.get("cluster", "slurm") not in ("slurm", "local"):
        raise UserError(f"--slurm cluster={values['cluster']}: expected slurm or local.")
    return values


@dataclass(frozen=True)
class _Job:
    """What runs in a job."""

    trial: Trial
    out: Path
    threads: int
    directory: Path
    lines: bool

    def __call__(self) -> Report:
        os.chdir(self.directory)  # relative paths mean what they mean to the user
        worker = load("cpm_tune.bench.worker:Worker")(self.out, self.threads)
        report: Report = worker.run(self.trial, None, self.lines)
        return report

    def checkpoint(self) -> Any:
        """What submitit queues again when the job is about to be ended."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class SlurmJobs:
    """An executor of jobs, of `workers` processes in all at a time."""

    retries = 2

    def __init__(
        self,
        out: Path,
        workers: int,
        cpus: int,
        gpus: int,
        settings: Mapping[str, str],
        lines: bool = False,
    ) -> None:
        """A process has so many CPUs and GPUs; `settings` are those of `parse_slurm`.

        Raises UserError if submitit is missing, or Slurm's commands are.
        """
        if importlib.util.find_spec("submitit") is None:
            raise UserError(
                "--executor slurm: submitit is not installed; run: pip install 'cpm-tune[slurm]'"
            )
        cluster = settings.get("cluster", "slurm")
        if cluster == "slurm" and shutil.which("srun") is None:
            raise UserError(
                "--executor slurm: there is no srun here; run the command on a machine that can "
                "submit jobs, or try it with --slurm cluster=local."
            )
        self.workers = workers
        self._out, self._cpus, self._gpus, self._lines = out.absolute(), cpus, gpus, lines
        self._cluster, self._settings = cluster, settings
        self._folder = Path(tempfile.mkdtemp(prefix=".slurm-", dir=self._out))
        self._jobs: dict[int, Any] = {}  # by the first worker
        self._keep = False

    def start(self, workers: Sequence[int], trial: Trial) -> None:
        import submitit

        executor = submitit.AutoExecutor(
            self._folder, cluster=self._cluster, slurm_max_num_timeout=_TIMEOUTS
        )
        given = {
            SETTINGS[key][0]: SETTINGS[key][1](value)
            for key, value in self._settings.items()
            if key != "cluster"
        }
        executor.update_parameters(
            name=trial.name[:60],
            tasks_per_node=1,
            cpus_per_task=self._cpus * trial.nproc,
            gpus_per_node=self._gpus * trial.nproc,
            **given,
        )
        job = _Job(trial, self._out, self._cpus, Path.cwd(), self._lines)
        try:
            self._jobs[workers[0]] = executor.submit(job)
        except (OSError, RuntimeError, submitit.core.utils.FailedJobError) as error:
            why = " ".join(str(error).split())[:300].rstrip(".")
            raise UserError(f"--executor slurm: no job could be submitted ({why}).") from error

    def wait(self, timeout: float) -> Mapping[int, Report]:
        deadline = time.monotonic() + timeout
        while not (ended := [w for w, job in self._jobs.items() if job.done()]):
            if (left := deadline - time.monotonic()) <= 0:
                return {}
            time.sleep(min(_POLL, left))
        return {worker: self._report(self._jobs.pop(worker)) for worker in ended}

    def _report(self, job: Any) -> Report:
        try:
            report: Report = job.result()
        except Exception as error:  # its process is gone, or what it left cannot be read
            self._keep = True
            why = str(error).strip().splitlines() or [type(error).__name__]
            return Report("lost", error=f"job {job.job_id}: {why[0]} (log: {job.paths.stderr})")
        return report

    def stop(self) -> None:
        for job in self._jobs.values():
            with contextlib.suppress(Exception):  # it may have ended meanwhile
                job.cancel(check=False)
        self._jobs.clear()
        if not self._keep:
            shutil.rmtree(self._folder, ignore_errors=True)
