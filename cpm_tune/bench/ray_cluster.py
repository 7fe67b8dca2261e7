"""Workers on a Ray cluster: actors, each on one machine, with the CPUs and GPUs that one cell's
processes ask for.

Results, data and backbones have to be in folders that every machine sees under the same path. A
cell that is lost with its machine is run again on another one.
"""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cpm_tune.bench.cells import Cell, Report
from cpm_tune.common.door import load
from cpm_tune.errors import UserError

_PLACINGS = 10


def _knock(address: str | None) -> None:
    """Raise OSError if nothing listens at host:port. Ray alone would try for minutes."""
    found = re.fullmatch(r"(?:ray://)?\[?([^/\]]+?)\]?:(\d+)", address or "")
    if found is not None and int(found[2]) < 2**16:
        socket.create_connection((found[1], int(found[2])), timeout=10).close()


class _Remote:
    """The actor: a worker in a process of the cluster."""

    def __init__(self, out: Path, threads: int, directory: Path) -> None:
        os.chdir(directory)  # relative paths of data and backbones mean what they mean to the user
        self._worker = load("cpm_tune.bench.worker:Worker")(out, threads)

    def ready(self) -> bool:
        return True

    def carry_out(self, cell: Cell) -> Report:
        report: Report = self._worker.carry_out(cell)
        return report


class RayActors:
    """Actors of `slots` processes in all (0: as many as the cluster has room for), made when they
    are needed."""

    retries = 2

    def __init__(
        self, out: Path, slots: int, address: str | None, cpus: int, gpus: int, largest: int = 1
    ) -> None:
        """A process has so many CPUs and GPUs, a cell no more than `largest` processes.

        Raises UserError if Ray is missing, not reachable, or no machine has room for a cell.
        """
        if importlib.util.find_spec("ray") is None:
            raise UserError(
                "--executor ray: Ray is not installed; run: pip install 'cpm-tune[ray]'"
            )
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        import ray

        self._out, self._threads = out.absolute(), cpus
        self._ours = not ray.is_initialized()
        if self._ours:
            where = address or os.environ.get("RAY_ADDRESS")
            try:
                _knock(where)
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
                said = " ".join(str(error).split())
                raise UserError(
                    f"--ray-address {where or 'auto'}: no Ray cluster can be used there "
                    f"({said.rstrip('.')}). `ray status` says whether it runs; if it asks for a "
                    "token, set RAY_AUTH_MODE=token here."
                ) from error
        room = []
        for node in ray.nodes():
            have = node["Resources"] if node["Alive"] else {}
            own = [int(have.get("CPU", 0)) // cpus]
            own += [int(have.get("GPU", 0)) // gpus] if gpus else []
            room.append(min(own))
        if max(room, default=0) < largest:
            if self._ours:
                ray.shutdown()
            raise UserError(
                f"a cell of {largest} process{'es' if largest > 1 else ''} asks for "
                f"{cpus * largest} CPU and {gpus * largest} GPU on one machine; no machine of the "
                f"Ray cluster has room for more than {max(room, default=0)} such processes; ask "
                "for less."
            )
        self.slots = min(slots or sum(room), sum(room))
        self._cpus, self._gpus = cpus, gpus
        self._actors: dict[int, Any] = {}
        self._sizes: dict[int, int] = {}  # processes of the cells that an actor was made for
        self._ready: dict[int, Any] = {}
        self._placed: dict[int, int] = {}  # how often in a row a slot's actor never began
        self._running: dict[Any, tuple[int, Cell]] = {}

    def start(self, slots: Sequence[int], cell: Cell) -> None:
        import ray

        slot = slots[0]
        for other in slots:
            if other in self._actors and (other != slot or self._sizes[other] != cell.nproc):
                ray.kill(self._actors.pop(other))
        if slot not in self._actors:
            made = ray.remote(_Remote).options(
                num_cpus=self._cpus * cell.nproc,
                num_gpus=self._gpus * cell.nproc,
                max_restarts=0,
                scheduling_strategy="SPREAD",
            )
            self._actors[slot] = made.remote(self._out, self._threads, Path.cwd())
            self._ready[slot] = self._actors[slot].ready.remote()
            self._sizes[slot] = cell.nproc
        self._running[self._actors[slot].carry_out.remote(cell)] = (slot, cell)

    def wait(self, timeout: float) -> Mapping[int, Report]:
        import ray

        busy = {slot for slot, _ in self._running.values()}
        for slot in set(self._actors) - busy:  # one without work must not hold what another needs
            ray.kill(self._actors.pop(slot))
        if not self._running:
            time.sleep(timeout)
            return {}
        ended: dict[int, Report] = {}
        for reference in ray.wait(list(self._running), num_returns=1, timeout=timeout)[0]:
            slot, cell = self._running.pop(reference)
            try:
                ended[slot] = ray.get(reference)
                self._placed.pop(slot, None)
            except ray.exceptions.RayError as error:  # its process or its machine is gone
                ray.kill(self._actors.pop(slot))
                if self._never_began(slot):
                    self.start([slot], cell)
                    continue
                said = str(error).strip().splitlines()[0]
                ended[slot] = Report(cell.run_id, "lost", error=said)
        return ended

    def _never_began(self, slot: int) -> bool:
        """The actor was sent to a machine whose death was not known yet: that is no loss of a cell,
        as long as it does not go on for ever."""
        import ray

        try:
            ray.get(self._ready[slot], timeout=0)
        except ray.exceptions.RayError:
            self._placed[slot] = self._placed.get(slot, 0) + 1
            return self._placed[slot] <= _PLACINGS
        return False

    def stop(self) -> None:
        import ray

        for actor in self._actors.values():
            ray.kill(actor)
        self._actors.clear()
        self._running.clear()
        if self._ours:
            ray.shutdown()
