"""`bench` from the outside: many runs from one command, whatever happens to them."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from bench_runs import SETTINGS, results, start, words, write_data
from conftest import CLI
from filelock import FileLock
from same_runs import assert_same, read_run

from cpm_tune.bench.processes import Processes
from cpm_tune.bench.schedule import Watcher, run_trials
from cpm_tune.bench.suite import make_suite
from cpm_tune.bench.trials import Trial, make_trials, plan_of
from cpm_tune.runs.execute import execute

AXES = ("--tasks", "lcqmc,ccpm", "--deltas", "lora,full", "--control", "zero-shot")
AXES = (*AXES, "--control", "random-backbone")
pytestmark = pytest.mark.usefixtures("one_thread", "_one_thread_each")


@pytest.fixture(scope="module")
def _one_thread_each() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("bench") / "data")


def trials_of(data: Path, backbone: Path, **more: object) -> list[Trial]:
    options: dict[str, object] = {
        "tasks": "lcqmc,ccpm",
        "deltas": "lora,full",
        "data": data,
        "set": SETTINGS,
    }
    options |= {"backbones": [str(backbone)], "controls": ["zero-shot", "random-backbone"]}
    return make_trials(make_suite(None, {**options, **more}))


@pytest.fixture(scope="module")
def alone(data: Path, small_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite's runs, each on its own: backbone and data read anew for every one."""
    out = tmp_path_factory.mktemp("alone")
    controls = {}
    for trial in trials_of(data, small_backbone):
        zero = controls.get(trial.needs)
        controls[trial.run_id] = execute(plan_of(trial), out, zero_shot=zero)
    return out


def test_a_suite_gives_the_bytes_of_its_runs_made_one_by_one(
    cli: CLI, alone: Path, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    """One process and one backbone for all of them, with LoRA, full tuning and controls between."""
    code, output, error = cli(*words(tmp_path, data, small_backbone, *AXES))
    assert code == 0, output + error
    assert "trials     10: 2 zero-shot, 4 tuning, 4 random-backbone" in output
    assert "to do      10" in output
    assert "estimate   unknown" in output
    assert "[10/10]" in output
    assert results(tmp_path) == results(alone)
    assert not list(tmp_path.glob("*.partial"))

    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/run.json")}
    code, output, _ = cli(*words(tmp_path, data, small_backbone, *AXES))
    assert code == 0
    assert "done       10\nto do      0" in output
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/run.json")} == before


def test_killed_at_random_moments_it_ends_with_the_same_records(
    alone: Path, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    """SIGTERM, SIGINT, then kill -9 three times, each after one more trial; then left alone."""
    line = words(tmp_path, data, small_backbone, *AXES, "--jobs", "2", "--quiet")
    chance = random.Random(20)

    def at_work(at_least: int, since: float) -> bool:
        """So many runs are finished, and one was begun by this process."""
        runs = list(tmp_path.glob("*/run.json"))
        begun = [path for path in runs if path.parent.suffix == ".partial"]
        if len(runs) - len(begun) < at_least:
            return False
        try:
            return any(path.stat().st_mtime > since for path in begun)
        except FileNotFoundError:  # finished meanwhile
            return False

    endings = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}
    for number, signum in enumerate([*endings, signal.SIGKILL, signal.SIGKILL]):
        since, process = time.time(), start(line)
        while process.is_alive() and not at_work(number, since):
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.3))
        if not process.is_alive():  # a fast machine: all trials are done before the last kills
            assert (number > 2, process.exitcode) == (True, 0)
            break
        os.kill(process.pid, signum)
        process.join(60)
        assert process.exitcode == endings[signum]
        for lock in (tmp_path / ".locks").iterdir():  # a worker that stayed would hold one
            with FileLock(lock).acquire(timeout=20):
                pass
    process = start(line)
    process.join(120)
    assert process.exitcode == 0
    assert results(tmp_path) == results(alone)


class Murder(Watcher):
    """Kills a worker while it runs its trial."""

    killed = False

    def tick(self) -> None:
        workers = multiprocessing.active_children()
        if not self.killed and workers:
            self.killed = True
            workers[0].kill()


def test_a_worker_that_is_killed_fails_its_trial_and_no_other(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "train.max_steps": 30}
    more = {"controls": (), "set": settings, "tasks": "lcqmc", "seeds": "1,2"}
    trials = trials_of(data, small_backbone, deltas="lora", **more)
    executor = Processes(tmp_path, 1)
    try:
        endings = run_trials(trials, executor, tmp_path, Murder())
    finally:
        executor.stop()
    failures = [ending for ending in endings if ending.record is None]
    assert len(failures) == 1
    assert "SIGKILL" in failures[0].report.error
    assert len([e for e in endings if e.record]) == 1
    note = tmp_path / ".bench" / "failed" / f"{failures[0].trial.run_id}.json"
    assert json.loads(note.read_text())["name"] == failures[0].trial.name

    axes = ("--tasks", "lcqmc", "--seeds", "1,2,3", "--control", "none")
    line = words(tmp_path, data, small_backbone, *axes, max_steps=30)
    code, output, _ = cli(*line, "--only-failed")
    assert code == 0
    assert "to do      1  (1 failed before)" in output
    assert not note.exists()
    assert len(list(tmp_path.glob("lcqmc.*/run.json"))) == 2


def test_a_failed_trial_is_named_the_others_go_on_and_it_runs_once_mended(
    cli: CLI, small_backbone: Path, tmp_path: Path
) -> None:
    data, out = write_data(tmp_path / "data"), tmp_path / "out"
    broken = data / "ccpm" / "test.jsonl"
    whole = broken.read_text()
    broken.write_text(whole.replace('"answer": 1', '"answer": 9', 1))
    line = words(out, data, small_backbone, "--tasks", "ccpm,lcqmc", "--jobs", "2")
    code, output, _ = cli(*line)
    assert code == 1
    assert "failed     ccpm zero-shot small" in output
    assert f"{broken}:2" in output
    assert "not run, its zero-shot control failed" in output
    assert "finished   2 of 4 trials" in output
    assert {p.parent.name.split(".")[0] for p in out.glob("*/run.json")} == {"lcqmc"}

    code, output, _ = cli(*line, "--dry-run")
    assert code == 0
    assert output.count("failed  ccpm") == 2
    broken.write_text(whole)
    code, output, _ = cli(*line, "--only-failed")  # another test file: other runs, none failed
    assert code == 1
    assert "to do      0" in output
    assert "no trial failed before; 2 are not finished: run without --only-failed." in output
    code, output, _ = cli(*line)
    assert code == 0
    assert "finished   4 of 4 trials, 2 of them now" in output


class KillsARank(Watcher):
    """Kills the second process of a trial as soon as it is there."""

    def __init__(self) -> None:
        self.group = list[int]()

    def started(self, worker: int, trial: Trial) -> None:
        threading.Thread(target=self.kill, daemon=True).start()

    def kill(self) -> None:
        while len(self.group) < 2:
            time.sleep(0.01)
            workers = [worker.pid for worker in multiprocessing.active_children() if worker.pid]
            self.group = [child for worker in workers for child in children(worker)]
        os.kill(self.group[1], signal.SIGKILL)


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes in /proc")
def test_a_trial_of_two_processes_is_the_run_of_one_also_after_one_was_killed(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    out, more = tmp_path / "out", {"tasks": "lcqmc", "deltas": "lora", "controls": ()}
    trials = trials_of(data, small_backbone, nproc=2, **more)
    executor = Processes(out, 2)
    watcher = KillsARank()
    try:
        (ending,) = run_trials(trials, executor, out, watcher)
    finally:
        executor.stop()
    assert ending.record is None
    assert f"process 1 of 2 (pid {watcher.group[1]}) was killed by SIGKILL" in ending.report.error
    assert not any(Path(f"/proc/{pid}").exists() for pid in watcher.group)

    axes = ("--tasks", "lcqmc", "--control", "none", "--nproc", "2")
    code, output, _ = cli(*words(out, data, small_backbone, *axes))
    assert code == 0
    assert "processes  2" in output
    (trial,) = trials
    one = execute(plan_of(trial), tmp_path / "one").folder
    record, lines = read_run(out / trial.run_id)
    assert_same(read_run(one), (record, lines))
    assert record.environment is not None
    assert record.environment.world_size == 2
    assert not list((out / ".bench" / "failed").iterdir())


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes in /proc")
def test_workers_that_are_still_importing_end_with_a_killed_launcher(tmp_path: Path) -> None:
    slow = f"import time\nopen({str(tmp_path / 'imports')!r}, 'w').close()\ntime.sleep(600)\n"
    (tmp_path / "datasets.py").write_text(slow)  # the first that the server imports
    code = (
        "from pathlib import Path\nfrom cpm_tune.bench.processes import Processes\n"
        "Processes(Path(), 1)._spawn()"
    )
    path = os.pathsep.join(map(str, (tmp_path, Path(__file__).parent.parent)))
    launcher = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
    )
    try:
        wait_until((tmp_path / "imports").exists)
        started = children(launcher.pid)
        assert started
    finally:
        launcher.kill()
        launcher.wait()
    wait_until(lambda: not any(running(pid) for pid in started))


def running(pid: int) -> bool:
    """Whether a process is there, and more than a corpse that nobody has collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], within: float = 60) -> None:
    limit = time.monotonic() + within
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)
