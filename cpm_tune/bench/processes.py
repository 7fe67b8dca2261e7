"""Workers as processes of this machine.

They are forked from one server process that has imported everything heavy once, so that another
worker costs no start-up. Windows cannot fork: each worker imports for itself there. A worker whose
parent is gone, however it died, ends at once.

The pool of concurrent.futures is not used: it does not report how a killed worker ended, has no
public way to end a busy one, and chooses itself which worker gets a trial.
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
from typing import Any

from cpm_tune.bench.trials import Report, Trial
from cpm_tune.common.door import load

PRELOADED = "cpm_tune.bench.preload"
_PATIENCE = 30.0  # seconds that a worker gets to save its state before it is killed


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_for(workers: int) -> int:
    """Threads of each of so many workers; OMP_NUM_THREADS overrides it."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else max(1, cores() // workers)


class Processes:
    """An executor of `workers` processes, started when they are needed, replaced when they die."""

    retries = 0  # a trial that takes its process down would take down the next one

    def __init__(self, out: Path, workers: int, lines: bool = False) -> None:
        """`lines`: the workers print their progress (`common.progress`)."""
        self.workers, self._lines = workers, lines
        self._out = out.absolute()
        self._context = _context()
        self._processes: dict[int, tuple[Any, Connection]] = {}
        self._trials: dict[int, Trial] = {}
        self._threads = threads_for(workers)

    def start(self, workers: Sequence[int], trial: Trial) -> None:
        first, *others = workers
        if first not in self._processes:
            self._processes[first] = self._spawn()
        for worker in others:  # their memory is the group's; a process ends when its pipe closes
            if worker in self._processes:
                self._processes.pop(worker)[1].close()
        self._trials[first] = trial
        with contextlib.suppress(OSError):  # it died meanwhile: `wait` reports that
            self._processes[first][1].send((trial, workers))

    def _spawn(self) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        arguments = (theirs, self._out, Path.cwd(), self._threads, self.workers, self._lines)
        process = self._context.Process(target=serve, args=arguments, daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def wait(self, timeout: float) -> Mapping[int, Report]:
        by_source: dict[Any, int] = {}
        for worker in self._trials:
            process, pipe = self._processes[worker]
            by_source |= {pipe: worker, process.sentinel: worker}
        ready = {by_source[source] for source in wait(list(by_source), timeout)}
        reports = {worker: self._report(worker) for worker in ready}
        ended = {worker: report for worker, report in reports.items() if report is not None}
        for worker in ended:
            del self._trials[worker]
        return ended

    def _report(self, worker: int) -> Report | None:
        process, pipe = self._processes[worker]
        with contextlib.suppress(EOFError, OSError):
            if pipe.poll():
                report: Report = pipe.recv()
                if report.last:
                    del self._processes[worker]
                    pipe.close()  # its process ends
                return report
        process.join(5)
        if process.is_alive():
            return None
        del self._processes[worker]
        pipe.close()
        return Report("lost", error=_ending(process.exitcode))

    def stop(self) -> None:
        for process, pipe in self._processes.values():
            pipe.close()
            process.terminate()
        deadline = time.monotonic() + _PATIENCE
        for process, _ in self._processes.values():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self._processes.clear()
        self._trials.clear()


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    return context


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            why = " (the system does that if memory runs out)" if name == "SIGKILL" else ""
            return f"its process was killed by {name}{why}."
    return f"its process ended with exit code {code}."


def serve(
    pipe: Connection, out: Path, directory: Path, threads: int, workers: int, lines: bool
) -> None:
    """Run the trials that come through the pipe until it closes, as one of `workers` processes."""
    # The parent decides: a terminal signals us both. Blocked, since a group sets its own handlers.
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    else:  # Windows
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(directory)
    _end_with_parent()
    with contextlib.suppress(ValueError, OSError):
        faulthandler.enable(sys.stderr)
    worker, gpus = load("cpm_tune.bench.worker:Worker")(out, threads), visible_gpus()
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):  # SIGTERM: its state is saved
        while True:
            trial, taken = pipe.recv()
            visible = gpus_of(taken, gpus) if workers > 1 else None
            if visible is not None and trial.nproc == 1:  # the same GPU for a worker, every time
                os.environ["CUDA_VISIBLE_DEVICES"] = visible
            with contextlib.redirect_stdout(sys.stderr):
                report = worker.run(trial, visible, lines)
            pipe.send(report)


def visible_gpus() -> list[str]:
    """The names of the GPUs that this process may use, without initialising CUDA."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))


def gpus_of(workers: Sequence[int], gpus: Sequence[str]) -> str | None:
    """CUDA_VISIBLE_DEVICES for these workers, which get the GPUs round-robin; None without GPUs.

    Several have as many different ones, if there are so many: two of them may have the same turn.
    """
    if not gpus:
        return None
    own = [gpus[worker % len(gpus)] for worker in workers]
    return ",".join(list(dict.fromkeys([*own, *gpus]))[: len(workers)])


def _end_with_parent() -> None:
    """End this process, whatever it is doing, as soon as the one that asked for it is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
