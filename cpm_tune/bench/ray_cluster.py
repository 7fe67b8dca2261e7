"""Workers on a Ray cluster: actors, each on one machine, with the CPUs and GPUs that one trial's
processes ask for.

Results, data and backbones have to be in folders that every machine sees under the same path. A
trial that is lost with its machine is run again on another one.
"""

from __future__ import annotations

import importlib.util
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpm_tune.bench.trials import Report, Trial
from cpm_tune.common.door import load
from cpm_tune.errors import UserError

_PLACEMENTS = 10  # times in a row that an actor may be lost before it begins


class _Remote:
    """A worker in a process of the cluster."""

    def __init__(self, out: Path, threads: int, directory: Path, lines: bool) -> None:
        os.chdir(directory)  # relative paths of data and backbones mean what they mean to the user
        self._worker, self._lines = load("cpm_tune.bench.worker:Worker")(out, threads), lines

    def ready(self) -> None:
        """Return as soon as the worker exists."""

    def run(self, trial: Trial) -> Report:
        report: Report = self._worker.run(trial, None, self._lines)
        return report


@dataclass(frozen=True)
class _Actor:
    """The handle of a `_Remote`, a reference to the end of its `ready`, and the number of processes
    that it has room for."""

    handle: Any
    ready: Any
    nproc: int


class RayActors:
    """An executor whose workers are actors, made when they are needed, of `workers` processes in
    all (0: as many as the cluster has room for)."""

    retries = 2

    def __init__(
        self,
        out: Path,
        workers: int,
        address: str | None,
        cpus: int,
        gpus: int | None,
        largest: int = 1,
        lines: bool = False,
    ) -> None:
        """A process has so many CPUs and GPUs (None: one GPU, if the cluster has any; without one,
        Ray hides those of the machine), a trial at most `largest` processes. `lines`: the workers
        print their progress, which Ray forwards.

        Raises UserError if Ray is missing or not reachable, or no machine has room for a trial.
        """
        self._out, self._cpus, self._lines = out.absolute(), cpus, lines
        self._actors: dict[int, _Actor] = {}
        self._lost_early: dict[int, int] = {}  # actors lost in a row before they began, by worker
        self._running: dict[Any, tuple[int, Trial]] = {}  # by the reference to the report
        self._ray, self._connected = _connect(address, lines)
        if gpus is None:
            gpus = int(any(n["Alive"] and n["Resources"].get("GPU") for n in self._ray.nodes()))
        self._gpus = gpus
        rooms = self._rooms()
        if (most := max(rooms, default=0)) < largest:
            self.stop()
            raise UserError(
                f"a trial of {largest} process{'es' * (largest > 1)} asks for {cpus * largest} CPU "
                f"and {gpus * largest} GPU on one machine; no machine of the Ray cluster has room "
                f"for more than {most} such processes. Ask for less."
            )
        self.workers = min(workers or sum(rooms), sum(rooms))

    def _rooms(self) -> list[int]:
        """How many processes each machine of the cluster has room for."""
        asked = {"CPU": self._cpus, "GPU": self._gpus}
        return [
            min(int(node["Resources"].get(name, 0)) // n for name, n in asked.items() if n)
            for node in self._ray.nodes()
            if node["Alive"]
        ]

    def start(self, workers: Sequence[int], trial: Trial) -> None:
        first = workers[0]
        actor = self._actors.get(first)
        if actor is not None and actor.nproc != trial.nproc:
            self._end(first)
        if first not in self._actors:
            remote = self._ray.remote(_Remote).options(
                num_cpus=self._cpus * trial.nproc,
                num_gpus=self._gpus * trial.nproc,
                max_restarts=0,
                scheduling_strategy="SPREAD",
            )
            handle = remote.remote(self._out, self._cpus, Path.cwd(), self._lines)
            self._actors[first] = _Actor(handle, handle.ready.remote(), trial.nproc)
        self._running[self._actors[first].handle.run.remote(trial)] = (first, trial)

    def _end(self, worker: int) -> _Actor:
        actor = self._actors.pop(worker)
        self._ray.kill(actor.handle)
        return actor

    def wait(self, timeout: float) -> Mapping[int, Report]:
        for idle in self._actors.keys() - {worker for worker, _ in self._running.values()}:
            self._end(idle)  # another may need its CPUs
        ended: dict[int, Report] = {}
        for reference in self._ray.wait(list(self._running), num_returns=1, timeout=timeout)[0]:
            worker, trial = self._running.pop(reference)
            try:
                ended[worker] = self._ray.get(reference)
                self._lost_early.pop(worker, None)
                if ended[worker].last:
                    self._end(worker)
            except self._ray.exceptions.RayError as error:  # its process or its machine is gone
                if self._never_began(worker, self._end(worker)):
                    self.start([worker], trial)
                else:
                    why = str(error).strip().splitlines()[0]
                    ended[worker] = Report("lost", error=why)
        return ended

    def _never_began(self, worker: int, actor: _Actor) -> bool:
        """Whether the actor was sent to a machine whose death was not known yet. That does not
        count as a loss of the trial, unless it happens again and again."""
        try:
            self._ray.get(actor.ready, timeout=0)
        except self._ray.exceptions.RayError:
            self._lost_early[worker] = self._lost_early.get(worker, 0) + 1
            return self._lost_early[worker] <= _PLACEMENTS
        return False

    def stop(self) -> None:
        for worker in list(self._actors):
            self._end(worker)
        self._running.clear()
        if self._connected:
            self._ray.shutdown()


def _connect(address: str | None, forward: bool) -> tuple[Any, bool]:
    """Connect to a cluster, which forwards what workers print or not; return Ray's module, and
    False if it was connected already."""
    if importlib.util.find_spec("ray") is None:
        raise UserError("--executor ray: Ray is not installed; run: pip install 'cpm-tune[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    import ray

    if ray.is_initialized():
        return ray, False
    where = address or os.environ.get("RAY_ADDRESS")
    try:
        _knock(where)
        ray.init(address=address, log_to_driver=forward, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        why = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"--ray-address {where or 'auto'}: no Ray cluster can be used there ({why}). "
            "`ray status` shows whether it runs; if it asks for a token, set RAY_AUTH_MODE=token "
            "here."
        ) from error
    return ray, True


def _knock(address: str | None) -> None:
    """Raise OSError if nothing listens at host:port. Ray alone would try for minutes."""
    parts = re.fullmatch(r"(?:ray://)?\[?([^/\]]+?)\]?:(\d+)", address or "")
    if parts is not None and int(parts[2]) < 2**16:
        socket.create_connection((parts[1], int(parts[2])), timeout=10).close()
