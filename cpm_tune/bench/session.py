"""What the `bench` command does: plan, print, run, report."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from cpm_tune.bench import show
from cpm_tune.bench.cells import make_cells
from cpm_tune.bench.processes import Executor, Processes
from cpm_tune.bench.ray_cluster import RayActors
from cpm_tune.bench.schedule import run_cells
from cpm_tune.bench.state import History, Standing, stand
from cpm_tune.bench.suite import Suite
from cpm_tune.common.sizes import counted
from cpm_tune.errors import UserError

FINISHED, FAILED = 0, 1


@dataclass(frozen=True)
class Cluster:
    """Where Ray runs and what each process of a cell asks it for."""

    address: str | None = None
    cpus: int = 1
    gpus: int = 0


def bench(
    suite: Suite,
    *,
    jobs: int = 0,
    cluster: Cluster | None = None,
    dry_run: bool = False,
    only_failed: bool = False,
    quiet: bool = False,
) -> int:
    """Run a suite; return 0 if every cell is finished, 1 if some failed, 130 or 143 if a signal
    ended it. `jobs` processes at a time here, or with `cluster` on Ray (0: those of the largest
    cell, or as many as fit).

    Finished cells are not run again. Raises UserError, before anything runs, for every mistake.
    """
    out = suite.out
    cells = make_cells(suite)
    standing, history = stand(out, cells, only_failed), History(out)
    largest = max((cell.nproc for cell in standing.todo), default=1)
    if jobs and jobs < largest:
        (first, *_) = [cell.name for cell in standing.todo if cell.nproc == largest]
        raise UserError(
            f"--jobs {jobs}: a cell of {largest} processes ({first}) does not fit; give --jobs "
            f"{largest} or more, or a smaller nproc."
        )
    wanted = sum(cell.nproc for cell in standing.todo) or 1
    slots = min(jobs or largest, wanted)
    where = f"{slots} {'process' if slots == 1 else 'processes'}"
    if cluster is not None:
        where = f"on Ray, {cluster.cpus} CPU and {cluster.gpus} GPU a process"
    if standing.todo and not dry_run:
        _make(out)
    if not quiet or dry_run:
        print(show.plan_text(standing, history, out, where, slots), flush=True)
    if dry_run:
        print(show.cell_list(standing, history))
        return FINISHED
    if not standing.todo:
        return _nothing(standing)

    def start() -> Executor:
        if cluster is None:
            return Processes(out, slots)

        return RayActors(out, jobs, cluster.address, cluster.cpus, cluster.gpus, largest)

    return _run(start, standing, history, out, quiet)


def _make(out: Path) -> None:
    """The results folder, before anything is said: what is wrong with it comes first."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        said = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise UserError(f"--out {out}: cannot be written ({said}); choose another.") from error


def _nothing(standing: Standing) -> int:
    """The exit code where there is nothing to do, and why, if not all is done."""
    left = sum(state != "done" for state in standing.states.values())
    if left:
        print(f"no cell failed before; {left} are not finished: run without --only-failed.")
    return FAILED if left else FINISHED


def _run(start: Callable[[], Executor], standing: Any, history: Any, out: Path, quiet: bool) -> int:
    started = time.monotonic()
    executor: Executor | None = None
    try:
        with _signals():
            executor = start()
            watcher = show.watcher(standing.todo, history, out, executor.slots, quiet)
            with watcher:
                endings = run_cells(standing.todo, executor, out, watcher)
    except _Signalled as stop:
        with contextlib.suppress(_Signalled, KeyboardInterrupt):
            print("stopping; a second interrupt does not wait", file=sys.stderr, flush=True)
        left = sum(not (out / cell.run_id).is_dir() for cell in standing.todo)
        _stop(executor)
        print(
            f"interrupted; finished runs are kept; {counted(left, 'cell')} left, the same command "
            "goes on.",
            file=sys.stderr,
        )
        return 128 + stop.number
    finally:
        _stop(executor)
    print(show.end_text(endings, standing, out, time.monotonic() - started), flush=True)
    return FAILED if any(ending.failure for ending in endings) else FINISHED


def _stop(executor: Executor | None) -> None:
    if executor is not None:
        executor.stop()


class _Signalled(BaseException):
    """SIGINT or SIGTERM came."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into an exception, once, so that the workers are stopped first."""

    def handle(number: int, frame: FrameType | None) -> None:
        for signum in before:
            signal.signal(signum, before[signum])
        raise _Signalled(number)

    before: dict[int, Any] = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, handle)
    except ValueError:  # not in the main thread: whoever runs it there handles signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
