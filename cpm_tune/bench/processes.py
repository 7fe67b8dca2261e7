"""Workers as processes of this machine.

They are forked from one server process that has imported everything heavy once, so that another
worker costs no start-up. A worker whose parent is gone, however it died, ends at once.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from cpm_tune.bench.cells import Cell, Report
from cpm_tune.common.door import load

PRELOADED = "cpm_tune.bench.preload"
_PATIENCE = 30.0  # seconds that a worker gets to save its state before it is killed


class Executor(Protocol):
    """Where cells run, in `slots` processes at a time."""

    slots: int
    retries: int  # how often a cell is run again after a process of it was lost

    def start(self, slots: Sequence[int], cell: Cell) -> None:
        """Begin a cell in free slots, one for each of its processes."""

    def wait(self, timeout: float) -> Mapping[int, Report]:
        """The first slots of the cells that ended, as soon as there is one, or after `timeout`
        seconds."""

    def stop(self) -> None:
        """End everything now; unfinished cells keep what they saved."""


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_for(slots: int) -> int:
    """Threads of each of so many processes; OMP_NUM_THREADS, where it is set, is what counts."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) else max(1, cores() // slots)


class Processes:
    """`slots` worker processes, started when they are needed, replaced when they die."""

    retries = 0  # a cell that takes its process down would take down the next one

    def __init__(self, out: Path, slots: int) -> None:
        self.slots = slots
        self._out = out.absolute()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([PRELOADED])
        self._workers: dict[int, tuple[Any, Connection]] = {}
        self._cells: dict[int, Cell] = {}
        self._threads = threads_for(slots)

    def start(self, slots: Sequence[int], cell: Cell) -> None:
        first, *others = slots
        if first not in self._workers:
            self._workers[first] = self._spawn()
        for slot in others:  # their memory is the group's; a worker ends when its pipe closes
            if slot in self._workers:
                self._workers.pop(slot)[1].close()
        self._cells[first] = cell
        with contextlib.suppress(OSError):  # it died meanwhile: `wait` tells
            self._workers[first][1].send((cell, slots))

    def _spawn(self) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        about = (theirs, self._out, Path.cwd(), self._threads, self.slots)
        process = self._context.Process(target=serve, args=about, daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def wait(self, timeout: float) -> Mapping[int, Report]:
        by_source: dict[Any, int] = {}
        for slot in self._cells:
            process, pipe = self._workers[slot]
            by_source |= {pipe: slot, process.sentinel: slot}
        ended: dict[int, Report] = {}
        for source in wait(list(by_source), timeout):
            slot = by_source[source]
            if slot not in ended and (report := self._report(slot)) is not None:
                ended[slot] = report
        for slot in ended:
            del self._cells[slot]
        return ended

    def _report(self, slot: int) -> Report | None:
        process, pipe = self._workers[slot]
        with contextlib.suppress(EOFError, OSError):
            if pipe.poll():
                report: Report = pipe.recv()
                return report
        process.join(5)
        if process.is_alive():
            return None
        del self._workers[slot]
        pipe.close()
        return Report(self._cells[slot].run_id, "lost", error=_ending(process.exitcode))

    def stop(self) -> None:
        processes = [process for process, _ in self._workers.values()]
        for _, pipe in self._workers.values():
            pipe.close()
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + _PATIENCE
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self._workers.clear()
        self._cells.clear()

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [process.pid for process, _ in self._workers.values()]


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            why = ": the system does that when memory runs out" if -code == signal.SIGKILL else ""
            return f"its process was ended by {name}{why}."
    return f"its process ended with exit code {code}."


def serve(pipe: Connection, out: Path, directory: Path, threads: int, slots: int) -> None:
    """Carry out the cells that come through the pipe until it closes, as one of `slots` workers."""
    # The parent decides; a terminal tells us both. Blocked, since a group sets handlers of its own.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(directory)
    _end_with_parent()
    with contextlib.suppress(ValueError, OSError):
        faulthandler.enable(sys.stderr)

    worker, gpus = load("cpm_tune.bench.worker:Worker")(out, threads), visible_gpus()
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):  # SIGTERM: its state is saved
        while True:
            cell, taken = pipe.recv()
            own = gpus_of(taken, gpus) if slots > 1 else None
            if own is not None and cell.nproc == 1:  # the same slot, so the same GPU, every time
                os.environ["CUDA_VISIBLE_DEVICES"] = own
            with contextlib.redirect_stdout(sys.stderr):
                report = worker.carry_out(cell, own)
            pipe.send(report)


def visible_gpus() -> list[str]:
    """The names of the GPUs that this process may use, without initialising CUDA."""
    import torch

    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    return said.split(",") if said else list(map(str, range(torch.cuda.device_count())))


def gpus_of(slots: Sequence[int], gpus: Sequence[str]) -> str | None:
    """CUDA_VISIBLE_DEVICES for these slots: the GPUs go round; None where there are none."""
    return ",".join(dict.fromkeys(gpus[s % len(gpus)] for s in slots)) if gpus else None


def _end_with_parent() -> None:
    """End this process as soon as the one that asked for it is gone, whatever is going on here."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
