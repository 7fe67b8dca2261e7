"""`bench` on Slurm, by submitit's local executor: the same runs, a job that is killed, one that is
queued again; and what is wrong with a request."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from bench_runs import SETTINGS, results, words, write_data
from conftest import CLI

from cpm_tune.bench.schedule import Watcher, run_trials
from cpm_tune.bench.slurm import SlurmJobs
from cpm_tune.bench.suite import make_suite
from cpm_tune.bench.trials import Trial, make_trials, plan_of
from cpm_tune.runs.execute import execute

pytest.importorskip("submitit", reason="submitit is not installed (extra slurm)")

LOCAL = ("--executor", "slurm", "--slurm", "cluster=local")


@pytest.mark.slow
def test_the_command_leaves_the_runs_it_would_leave_without(
    small_backbone: Path, tmp_path: Path, cli: CLI
) -> None:
    def given(out: str, *more: str) -> list[str]:
        line = words(tmp_path / out, write_data(tmp_path / "data"), small_backbone)
        line += ["--tasks", "lcqmc", "--deltas", "lora", "--set", "run.threads=1"]
        return [*line, *more]

    code, output, error = cli(*given("jobs", *LOCAL))
    assert code == 0, error
    assert "on Slurm, 1 CPU and 0 GPU per process" in output
    assert not list((tmp_path / "jobs").glob(".slurm-*"))
    assert cli(*given("here"))[0] == 0
    assert results(tmp_path / "jobs") == results(tmp_path / "here")


class Signals(Watcher):
    """Sends a signal to the process of the job as soon as the trial has saved its state."""

    def __init__(self, number: signal.Signals, out: Path, run: str) -> None:
        self.number, self.out, self.run, self.sent = number, out, run, False
        self.lost: list[str] = []

    def again(self, worker: int, trial: Trial, why: str) -> None:
        self.lost.append(why)

    def tick(self) -> None:
        state = self.out / f"{self.run}.partial" / "log.jsonl"
        if not self.sent and state.is_file() and state.stat().st_size:
            (job,) = self.out.glob(".slurm-*/*_submitted.pkl")
            controller = job.name.split("_")[0]
            children = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
            os.kill(int(children[0]), self.number)
            self.sent = True


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR2])
def test_a_job_that_is_killed_or_queued_again_leaves_the_same_run(
    small_backbone: Path, tmp_path: Path, number: signal.Signals, one_thread: None
) -> None:
    settings = {**SETTINGS, "train.max_steps": 60, "train.eval_every": 30, "run.threads": 1}
    suite = make_suite(
        None,
        {
            **{"tasks": "lcqmc", "controls": (), "deltas": "lora", "set": settings},
            **{"data": write_data(tmp_path / "data"), "backbones": [str(small_backbone)]},
        },
    )
    out = tmp_path / "out"
    out.mkdir()
    (trial,) = make_trials(suite)
    executor = SlurmJobs(out, 1, 1, 0, {"cluster": "local"})
    watcher = Signals(number, out, trial.run_id)
    try:
        (ending,) = run_trials([trial], executor, out, watcher)
    finally:
        executor.stop()
    assert ending.record is not None, ending.report
    assert watcher.sent
    assert len(watcher.lost) == (number == signal.SIGKILL)
    assert all("job " in why and "log: " in why for why in watcher.lost)
    assert len(list(out.glob(".slurm-*"))) == len(watcher.lost)  # with the log that is named
    execute(plan_of(trial), tmp_path / "alone")
    assert results(out) == results(tmp_path / "alone")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("--executor", "slurm", "--slurm", "partitoin=gpu"), "Did you mean 'partition'?"),
        (("--executor", "slurm", "--slurm", "partition"), "expected KEY=VALUE"),
        (("--executor", "slurm", "--slurm", "partition=a\n#SBATCH x"), "expected KEY=VALUE"),
        (("--executor", "slurm", "--slurm", "time=4h"), "time=4h: expected a number"),
        (("--executor", "slurm", "--slurm", "cluster=here"), "expected slurm or local"),
        (("--slurm", "partition=gpu"), "--slurm needs --executor slurm"),
        (("--gpus-per-process", "1"), "needs --executor ray or --executor slurm"),
        (("--executor", "slurm"), "there is no srun here"),
    ],
)
def test_mistakes_are_one_sentence(
    cli: CLI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: tuple[str, ...],
    expected: str,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, error = cli("bench", "--tasks", "lcqmc", "--out", tmp_path / "out", *given)
    assert code == 2
    assert expected in error
    assert len(error.splitlines()) == 1
