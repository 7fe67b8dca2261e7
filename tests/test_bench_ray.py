"""`bench` on Ray: a real cluster of two nodes on this machine, one of which is killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bench_runs import SETTINGS, results, write_data
from same_runs import assert_same, read_run

from cpm_tune.bench.cells import Cell, make_cells, plan_of
from cpm_tune.bench.schedule import Ending, run_cells
from cpm_tune.bench.suite import make_suite
from cpm_tune.errors import UserError
from cpm_tune.run import execute

ray = pytest.importorskip("ray", reason="Ray is not installed (extra ray)")

GROUP = {"nproc": 2, "set": {"train.max_steps": 4, "train.eval_every": 2}}


class KillsANode:
    """Removes a node as soon as a cell is being trained."""

    def __init__(self, cluster: object, node: object, log: Path) -> None:
        self.cluster, self.node, self.log = cluster, node, log
        self.lost: list[str] = []

    def started(self, slot: int, cell: Cell) -> None: ...
    def ended(self, slot: int | None, ending: Ending) -> None: ...

    def again(self, slot: int, cell: Cell, why: str) -> None:
        self.lost.append(cell.run_id)

    def tick(self) -> None:
        if self.node and self.log.is_file():
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.node = None


@pytest.mark.slow
def test_a_cell_whose_node_is_killed_is_run_again_on_the_other_after_one_of_two_processes(
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
            **{"deltas": "lora,bitfit", "cells": [{"match": {"delta": "bitfit"}, **GROUP}]},
            "backbones": [str(small_backbone)],
        },
    )
    cells = make_cells(suite)
    lora, bitfit = sorted(cells, key=lambda cell: cell.nproc)
    assert (lora.nproc, bitfit.nproc) == (1, 2)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})  # bitfit fits here only
    executor = None
    try:
        doomed = cluster.add_node(num_cpus=1)
        with pytest.raises(UserError, match="room for more than 2 such processes"):
            RayActors(out, 0, cluster.address, cpus=1, gpus=0, largest=3)
        executor = RayActors(out, 0, cluster.address, cpus=1, gpus=0, largest=2)
        assert executor.slots == 3
        watcher = KillsANode(cluster, doomed, out / f"{lora.run_id}.partial" / "log.jsonl")
        endings = run_cells(cells, executor, out, watcher)
    finally:
        if executor is not None:
            executor.stop()
        cluster.shutdown()
    assert watcher.lost == [lora.run_id]
    assert all(ending.record for ending in endings)
    assert len(endings) == 2
    for cell in cells:
        execute(plan_of(cell), tmp_path / "alone")
    alone, here = results(tmp_path / "alone"), results(out)
    own = [name for name in alone if name.startswith(lora.run_id)]
    assert own
    assert {name: here[name] for name in own} == {name: alone[name] for name in own}
    assert_same(read_run(tmp_path / "alone" / bitfit.run_id), read_run(out / bitfit.run_id))
    assert here[f"{bitfit.run_id}/run.json"]["environment"]["world_size"] == 2
