"""Runs the trials to do: chooses the next one for free workers, and reports how each ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cpm_tune.bench.state import forget_failure, note_failure, trial_state
from cpm_tune.bench.trials import Report, Trial
from cpm_tune.schema.record import RunRecord

_TICK = 0.5  # seconds between two looks at the running trials


class Executor(Protocol):
    """Where trials run, on `workers` processes at a time."""

    workers: int
    retries: int  # how often a trial is run again after a process of it was lost

    def start(self, workers: Sequence[int], trial: Trial) -> None:
        """Begin a trial on free workers, one for each of its processes."""

    def wait(self, timeout: float) -> Mapping[int, Report]:
        """The reports of trials that ended, by their first worker, as soon as there is one or after
        `timeout` seconds."""

    def stop(self) -> None:
        """End everything now; unfinished trials keep what they saved."""


@dataclass(frozen=True)
class Ending:
    """A trial that needs no more work: its worker's report, and its record unless it failed."""

    trial: Trial
    report: Report
    record: RunRecord | None = None


class Watcher:
    """Follows the trials as they run; use it as a context manager. This one prints nothing."""

    def started(self, worker: int, trial: Trial) -> None:
        """A trial begins; `worker` is the first of its workers."""

    def ended(self, worker: int | None, ending: Ending) -> None:
        """A trial is done or has failed; `worker` is None if it never began."""

    def again(self, worker: int, trial: Trial, why: str) -> None:
        """A trial was lost with its process and will be run again."""

    def tick(self) -> None:
        """Called twice a second."""

    def __enter__(self) -> None:
        """Called before the first trial begins."""

    def __exit__(self, *error: object) -> None:
        """Called after the last one ended, and on an exception."""


class Queue:
    """The trials that wait. A worker gets a trial of the same group as its last one if possible."""

    def __init__(self, trials: Sequence[Trial], workers: int) -> None:
        self._waiting = list(trials)
        self._last: list[tuple[str, str] | None] = [None] * workers
        self._running: dict[int, Trial] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting or self._running)

    def take(self, worker: int, room: int = 1) -> Trial | None:
        """The next trial for a worker, of at most `room` processes; larger ones first. None if no
        waiting trial has its control finished."""
        pending = {t.run_id for t in (*self._waiting, *self._running.values())}
        ready = [t for t in self._waiting if t.needs not in pending and t.nproc <= room]
        if not ready:
            return None
        last = self._last[worker]
        others = [self._last[other] for other in self._running if other != worker]

        def distance(trial: Trial) -> int:
            if last == trial.group:
                return 0
            shares_backbone = last is None or last[0] == trial.group[0]
            return (1 if shares_backbone else 3) + (trial.group in others)

        chosen = min(ready, key=lambda trial: (-trial.nproc, distance(trial)))  # the first nearest
        self._waiting.remove(chosen)
        self._running[worker], self._last[worker] = chosen, chosen.group
        return chosen

    def end(self, worker: int) -> Trial:
        """Free the worker and return its trial."""
        return self._running.pop(worker)

    def put_back(self, trial: Trial) -> None:
        """Make a trial the next one to be taken."""
        self._waiting.insert(0, trial)

    def drop_dependents(self, run_id: str) -> list[Trial]:
        """Remove and return the trials that need this control."""
        dropped = [trial for trial in self._waiting if trial.needs == run_id]
        self._waiting = [trial for trial in self._waiting if trial.needs != run_id]
        return dropped


def run_trials(
    trials: Sequence[Trial], executor: Executor, out: Path, watcher: Watcher
) -> list[Ending]:
    """Run all trials and return how each ended.

    Failures are noted in the results folder. A trial whose process is lost is run again as often as
    the executor allows. None may have more processes than the executor has workers. The caller
    stops the executor, also if this is interrupted.
    """
    queue = Queue(trials, executor.workers)
    free = set(range(executor.workers))
    taken: dict[int, Sequence[int]] = {}  # by the first worker of a trial
    lost: Counter[str] = Counter()
    endings: list[Ending] = []

    def end(worker: int | None, trial: Trial, report: Report) -> None:
        ending = _ending(out, trial, report)
        endings.append(ending)
        watcher.ended(worker, ending)
        if ending.record is None:
            what = "its search" if trial.search else "its zero-shot control"
            why = f"not run, {what} failed: {ending.report.error}"
            for dependent in queue.drop_dependents(trial.run_id):
                end(None, dependent, Report("failed", error=why))

    while queue:
        for worker in sorted(free):
            if worker in free and (trial := queue.take(worker, len(free))) is not None:
                taken[worker] = [worker, *sorted(free - {worker})[: trial.nproc - 1]]
                free.difference_update(taken[worker])
                watcher.started(worker, trial)
                executor.start(taken[worker], trial)
        for worker, report in executor.wait(_TICK).items():
            free.update(taken.pop(worker))
            trial = queue.end(worker)
            lost[trial.run_id] += report.status == "lost"
            if report.status == "lost" and lost[trial.run_id] <= executor.retries:
                queue.put_back(trial)
                watcher.again(worker, trial, report.error)
            else:
                end(worker, trial, report)
        watcher.tick()
    return endings


def _ending(out: Path, trial: Trial, report: Report) -> Ending:
    """Look up the record of a trial that finished; note why one failed."""
    if report.status == "finished":
        _, record = trial_state(out, trial)
        if record is not None:
            forget_failure(out, trial.run_id)
            return Ending(trial, report, record)
        missing = f"finished, but {out / trial.run_id} is missing: do all machines share --out?"
        report = Report("failed", report.seconds, missing)
    note_failure(out, trial, report)
    return Ending(trial, report)
