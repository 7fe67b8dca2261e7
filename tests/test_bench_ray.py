"""`bench` on Ray: a real cluster of two nodes on this machine, one of which is killed; and the
command line, with a Ray of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from bench_runs import SETTINGS, results, words, write_data
from conftest import CLI, REPOSITORY
from same_runs import assert_same, read_run

from cpm_tune.bench.schedule import Watcher, run_trials
from cpm_tune.bench.suite import make_suite
from cpm_tune.bench.trials import Trial, make_trials, plan_of
from cpm_tune.errors import UserError
from cpm_tune.runs.execute import execute

ray = pytest.importorskip("ray", reason="Ray is not installed (extra ray)")

GROUP = {"nproc": 2, "set": {"train.max_steps": 4, "train.eval_every": 2}}


class KillsANode(Watcher):
    """Removes a node as soon as a trial is being trained."""

    def __init__(self, cluster: object, node: object, log: Path) -> None:
        self.cluster, self.node, self.log = cluster, node, log
        self.lost: list[tuple[str, str]] = []

    def again(self, worker: int, trial: Trial, why: str) -> None:
        self.lost.append((trial.run_id, why))

    def tick(self) -> None:
        if self.node and self.log.is_file():
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.node = None


@pytest.mark.slow
def test_a_trial_whose_node_is_killed_is_run_again_on_the_other_after_one_of_two_processes(
    small_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    from ray.cluster_utils import Cluster

    from cpm_tune.bench.ray_cluster import RayActors

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    data, out = write_data(tmp_path / "data"), tmp_path / "out"
    settings = {**SETTINGS, "train.max_steps": 60, "train.eval_every": 30}
    suite = make_suite(
        None,
        {
            **{"tasks": "lcqmc", "controls": (), "data": data, "set": settings},
            **{"deltas": "lora,bitfit", "trials": [{"match": {"delta": "bitfit"}, **GROUP}]},
            "backbones": [str(small_backbone)],
        },
    )
    trials = make_trials(suite)
    lora, bitfit = sorted(trials, key=lambda trial: trial.nproc)
    assert (lora.nproc, bitfit.nproc) == (1, 2)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})  # bitfit fits here only
    executor = None
    try:
        doomed = cluster.add_node(num_cpus=1)
        with pytest.raises(UserError, match="room for more than 2 such processes"):
            RayActors(out, 0, cluster.address, cpus=1, gpus=0, largest=3)
        executor = RayActors(out, 0, cluster.address, cpus=1, gpus=0, largest=2)
        assert executor.workers == 3
        watcher = KillsANode(cluster, doomed, out / f"{lora.run_id}.partial" / "log.jsonl")
        endings = run_trials(trials, executor, out, watcher)
    finally:
        if executor is not None:
            executor.stop()
        cluster.shutdown()
    assert lora.run_id in dict(watcher.lost)  # seldom Ray loses the group, too, which is run again
    assert len(watcher.lost) <= 2, watcher.lost
    assert all(ending.record for ending in endings)
    assert len(endings) == 2
    for trial in trials:
        execute(plan_of(trial), tmp_path / "alone")
    alone, here = results(tmp_path / "alone"), results(out)
    of_lora = [name for name in alone if name.startswith(lora.run_id)]
    assert of_lora
    assert {name: here[name] for name in of_lora} == {name: alone[name] for name in of_lora}
    assert_same(read_run(tmp_path / "alone" / bitfit.run_id), read_run(out / bitfit.run_id))
    assert here[f"{bitfit.run_id}/run.json"]["environment"]["world_size"] == 2


@pytest.mark.slow
def test_the_command_on_a_ray_of_its_own_leaves_the_runs_it_would_leave_without(
    small_backbone: Path, tmp_path: Path, cli: CLI
) -> None:
    def given(out: str, *more: str) -> list[str]:
        line = words(tmp_path / out, write_data(tmp_path / "data"), small_backbone)
        line += ["--tasks", "lcqmc", "--deltas", "lora,bitfit", "--control", "none"]
        return [*line, "--set", "run.threads=1", *more]

    def on_ray() -> str:
        code = [sys.executable, str(REPOSITORY / "tune.py"), *given("ray", "--executor", "ray")]
        done = subprocess.run(
            code, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as home:  # sockets need short paths
        env = {**os.environ, "HOME": home, "RAY_TMPDIR": home}
        env = {k: v for k, v in env.items() if k not in ("RAY_ADDRESS", "RAY_AUTH_MODE")}
        paths = [str(REPOSITORY), env.get("PYTHONPATH", "")]
        env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        output = on_ray()
        assert "on Ray, 1 CPU and 1 GPU if it has any per process" in output
        assert "finished   2 of 2 trials, 2 of them now" in output
        made = results(tmp_path / "ray")
        assert "to do      0" in on_ray()
    assert cli(*given("local"))[0] == 0
    assert made == results(tmp_path / "local") == results(tmp_path / "ray")
    assert sum(name.endswith("run.json") for name in made) == 2


def test_an_address_where_nothing_listens_is_refused_at_once(
    small_backbone: Path, tmp_path: Path, cli: CLI
) -> None:
    with socket.socket() as taken:  # bound, but it does not listen
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = words(tmp_path / "out", write_data(tmp_path / "data"), small_backbone)
        line += ["--tasks", "lcqmc", "--executor", "ray", "--ray-address", address]
        code, _, error = cli(*line)
    assert code == 2
    assert error.startswith(f"error: --ray-address {address}: no Ray cluster can be used there (")
    assert not list((tmp_path / "out").iterdir())
