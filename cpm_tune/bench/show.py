"""What `bench` prints: the plan, a live table on a terminal or plain lines, the end."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cpm_tune.bench.schedule import Ending, Watcher
from cpm_tune.bench.state import History, SuiteState
from cpm_tune.bench.trials import Trial
from cpm_tune.common.events import emit
from cpm_tune.common.folders import LOG, partial_folder
from cpm_tune.common.program import program
from cpm_tune.common.reading import open_regular, parse_json
from cpm_tune.common.sizes import counted, duration
from cpm_tune.common.terminal import obeyed
from cpm_tune.common.texts import table
from cpm_tune.errors import escaped
from cpm_tune.schema.record import RunRecord, shown_scores

_TAIL = 4096  # bytes of a log that contain its last entries


def plan_text(state: SuiteState, history: History, out: Path, where: str, workers: int) -> str:
    """The plan in a few lines: axes, trials, done, to do, estimated time."""
    trials, states = state.trials, Counter(state.states.values())
    kinds = Counter(trial.control or "tuning" for trial in trials)
    processes = sorted({trial.nproc for trial in trials})
    before = {"failed before": states["failed"], "begun before": states["unfinished"]}
    note = ", ".join(f"{n} {what}" for what, n in before.items() if n)
    seconds, unknown = history.remaining(state.todo, workers)
    estimate = f"about {duration(seconds)}" if seconds else "unknown, no earlier run to go by"
    if seconds and unknown:
        estimate += f" and {counted(unknown, 'trial')} of unknown time"
    lines = {
        "tasks": _names(trial.request.task for trial in trials),
        "deltas": _names(trial.delta for trial in trials if trial.control != "zero-shot"),
        "backbones": _names(trial.backbone for trial in trials),
        "seeds": _names(sorted({t.seed for t in trials if t.control != "zero-shot"})),
        "processes": _names(processes) if processes != [1] else "",
        "trials": f"{len(trials)}: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items()),
        "done": str(state.done),
        "to do": f"{len(state.todo)}  ({note})" if note else str(len(state.todo)),
        "estimate": f"{estimate}, {where}" if state.todo else "",
        "results": str(out),
    }
    return "\n".join(f"{name:10} {text}" for name, text in lines.items() if text)


def plan_values(state: SuiteState, history: History, out: Path, workers: int) -> dict[str, Any]:
    """The plan as JSON values; `run_id` and `seconds` are None where they are not known yet."""
    trials = [
        {
            "name": trial.name,
            "state": state.states[trial.run_id],
            "run_id": state.runs.get(trial.run_id),
            "task": trial.request.task,
            "delta": trial.delta,
            "backbone": trial.backbone,
            "seed": trial.seed,
            "control": trial.control,
            "nproc": trial.nproc,
            "seconds": history.seconds(trial),
        }
        for trial in state.trials
    ]
    seconds, unknown = history.remaining(state.todo, workers)
    left = {"todo": len(state.todo), "seconds": seconds, "unknown_times": unknown}
    return {"trials": trials, "done": state.done, **left, "workers": workers, "out": str(out)}


def _names(values: Iterable[object]) -> str:
    return ", ".join(map(str, dict.fromkeys(values)))


def trial_list(state: SuiteState, history: History) -> str:
    """A table with one line per trial: state, name, estimated time, run id."""
    rows = []
    for trial in state.trials:
        status, seconds = state.states[trial.run_id], history.seconds(trial)
        estimate = "" if status == "done" or seconds is None else duration(seconds)
        name = trial.name + (f" x{trial.nproc}" if trial.nproc > 1 else "")
        rows.append(
            (status, name, estimate, state.runs.get(trial.run_id, "known after its search"))
        )
    return table(("state", "trial", "time", "run id"), rows)


def score_text(record: RunRecord) -> str:
    """The ranking metric of a finished run."""
    if not record.labelled:
        dev = record.scores["dev"][record.ranks_by]
        return f"dev {record.ranks_by} {dev.value:.4f}, test without answers"
    test = record.test
    return f"{record.ranks_by} {test.value:.4f} [{test.low:.4f}, {test.high:.4f}]"


def end_text(endings: Sequence[Ending], state: SuiteState, out: Path, seconds: float) -> str:
    """Every failure with its reason, and how many trials are finished."""
    failed = [ending for ending in endings if ending.record is None]
    done = len(endings) - len(failed)
    lines = [f"failed     {ending.trial.name}: {ending.report.error}" for ending in failed]
    lines.append(
        f"finished   {done + state.done} of {len(state.trials)} trials, {done} of them now, in "
        f"{duration(seconds)}" + (f"; {len(failed)} failed" if failed else "")
    )
    if failed:
        lines.append("again      repeat the command to retry them; --only-failed runs nothing else")
    lines.append(f"next       {program()} leaderboard {out}")
    return "\n".join(lines)


def _ending_text(ending: Ending) -> str:
    result = f"failed: {ending.report.error}"
    if ending.record is not None:
        training = ending.record.training
        best = ""
        if training is not None:
            best = f", best step {training.best_step} (dev {training.best_dev:.4f})"
        result = f"{score_text(ending.record)}{best}, {duration(ending.report.seconds)}"
    return f"{ending.trial.name}: {result}"


def _event(ending: Ending) -> dict[str, Any]:
    record = ending.record
    error = ending.report.error if record is None else None
    scores = {} if record is None else record.scores
    return {
        "id": ending.trial.run_id,
        "name": ending.trial.name,
        "ok": record is not None,
        "error": error,
        "scores": {split: shown_scores(by_name) for split, by_name in scores.items()},
        "seconds": ending.report.seconds,
    }


class _Left:
    """The trials that have not ended, and the time that they need."""

    def __init__(self, trials: Sequence[Trial], history: History, workers: int) -> None:
        self._trials = {trial.run_id: trial for trial in trials}
        self.total, self._history, self._workers = len(trials), history, workers

    def end(self, ending: Ending) -> None:
        """Take off a trial that ended."""
        self._trials.pop(ending.trial.run_id, None)
        emit("trial", **_event(ending), ended=self.ended, total=self.total)
        if ending.record is not None:
            trial, seconds = ending.trial, ending.report.seconds
            self._history.add(trial.request.task, trial.delta, seconds)

    @property
    def ended(self) -> int:
        """How many trials have ended."""
        return self.total - len(self._trials)

    def time(self) -> str:
        """About how long the others take, as a clause; empty if that is unknown."""
        seconds, unknown = self._history.remaining(self._trials.values(), self._workers)
        return f", about {duration(seconds)} left" if seconds and not unknown else ""


class Lines(Watcher):
    """Prints a plain line for every trial that ends, with the time that the others need."""

    def __init__(self, left: _Left) -> None:
        self._left = left

    def ended(self, worker: int | None, ending: Ending) -> None:
        self._left.end(ending)
        number, time = f"{self._left.ended}/{self._left.total}", self._left.time()
        print(f"[{number}{time}] {_ending_text(ending)}", flush=True)

    def again(self, worker: int, trial: Trial, why: str) -> None:
        print(f"again      {trial.name}: {why}", flush=True)


class Live(Watcher):
    """Redraws a table of the running trials twice a second, below a line per trial that ended."""

    def __init__(self, left: _Left, out: Path, settings: bool) -> None:
        """`settings`: the trials differ in some, which have a column."""
        from rich.console import Console
        from rich.live import Live as RichLive

        self._left, self._out, self._settings = left, out, settings
        self._failed = 0
        self._running: dict[int, tuple[Trial, float]] = {}
        self._started = time.monotonic()
        console = Console(file=obeyed(sys.stderr))
        self._live = RichLive(
            self._table(), console=console, auto_refresh=False, redirect_stdout=False
        )

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *error: object) -> None:
        self.tick()
        self._live.stop()

    def started(self, worker: int, trial: Trial) -> None:
        self._running[worker] = (trial, time.monotonic())
        self.tick()

    def ended(self, worker: int | None, ending: Ending) -> None:
        failed = ending.record is None
        if worker is not None:
            self._running.pop(worker, None)
        self._left.end(ending)
        self._failed += failed
        self._print(_ending_text(ending), "red" if failed else None)
        self.tick()

    def again(self, worker: int, trial: Trial, why: str) -> None:
        self._running.pop(worker, None)
        self._print(f"again: {trial.name}: {why}", None)

    def tick(self) -> None:
        self._live.update(self._table(), refresh=True)

    def _print(self, text: str, style: str | None) -> None:
        shown = escaped(text, keep="\n")
        self._live.console.print(shown, style=style, markup=False, highlight=False)

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        left, spent = self._left, duration(time.monotonic() - self._started)
        title = f"{left.ended} of {left.total} trials, {self._failed} failed, {spent}{left.time()}"
        live = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for column in ("#", "task", "delta", "backbone", "seed", "settings", "step", "dev", "time"):
            if column != "settings" or self._settings:
                live.add_column(column, overflow="fold")
        for worker, (trial, started) in sorted(self._running.items()):
            zero_shot = trial.control == "zero-shot"
            random = "random " if trial.control == "random-backbone" else ""
            row = [f"{worker + 1}" + (f" x{trial.nproc}" if trial.nproc > 1 else "")]
            row += [trial.request.task, "zero-shot" if zero_shot else trial.delta]
            row += [random + trial.backbone, "" if zero_shot else str(trial.seed)]
            row += [trial.about] * self._settings
            row += [*progress(self._out, trial), duration(time.monotonic() - started)]
            live.add_row(*(Text(escaped(cell)) for cell in row))
        return live


def progress(out: Path, trial: Trial) -> tuple[str, str]:
    """The last step and the last dev score in the log of a running trial, as texts."""
    step = dev = ""
    log = partial_folder(out, trial.run_id) / LOG
    with contextlib.suppress(OSError), open_regular(log) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
        for line in file.read().splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # cut off, or half-written
                entry = parse_json(line, finite=False)
                step = str(entry["step"])
                dev = f"{entry['dev']:.4f}" if "dev" in entry else dev
    return step, dev


def watcher(
    trials: Sequence[Trial], history: History, out: Path, workers: int, quiet: bool
) -> Watcher:
    """The live table on a terminal, plain lines anywhere else."""
    left = _Left(trials, history, workers)
    if sys.stderr.isatty() and not quiet:
        return Live(left, out, any(trial.about for trial in trials))
    return Lines(left)
