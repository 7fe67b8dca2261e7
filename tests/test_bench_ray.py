"""`bench` on Ray: a real cluster of two nodes on this machine, one of which is killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bench_runs import SETTINGS, results, write_data

from cpm_tune.bench.cells import Cell, make_cells, plan_of
from cpm_tune.bench.schedule import Ending, run_cells
from cpm_tune.bench.suite import make_suite
from cpm_tune.run import execute

ray = pytest.importorskip("ray", reason="Ray is not installed (extra ray)")


class KillsANode:
    """Removes a node as soon as both of its cells are being trained."""

    def __init__(self, cluster: object, node: object, out: Path) -> None:
        self.cluster, self.node, self.out = cluster, node, out
        self.lost: list[str] = []

    def started(self, slot: int, cell: Cell) -> None: ...
    def ended(self, slot: int | None, ending: Ending) -> None: ...

    def again(self, slot: int, cell: Cell, why: str) -> None:
        self.lost.append(cell.run_id)

    def tick(self) -> None:
        if self.node and len(list(self.out.glob("*.partial/log.jsonl"))) == 2:
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.node = None


@pytest.mark.slow
def test_a_cell_whose_node_is_killed_is_run_again_on_the_other(
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
            **{"tasks": "lcqmc", "seeds": [1, 2], "controls": (), "data": data, "set": settings},
            "backbones": [str(small_backbone)],
        },
    )
    cells = make_cells(suite)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    executor = None
    try:
        doomed = cluster.add_node(num_cpus=1)
        executor = RayActors(out, 0, cluster.address, cpus=1, gpus=0)
        assert executor.slots == 2
        watcher = KillsANode(cluster, doomed, out)
        endings = run_cells(cells, executor, out, watcher)
    finally:
        if executor is not None:
            executor.stop()
        cluster.shutdown()
    assert len(watcher.lost) == 1
    assert all(ending.record for ending in endings)
    assert len(endings) == 2
    (again,) = [cell for cell in cells if cell.run_id == watcher.lost[0]]
    execute(plan_of(again), tmp_path / "alone")
    alone, here = results(tmp_path / "alone"), results(out)
    assert {name: here[name] for name in alone} == alone
