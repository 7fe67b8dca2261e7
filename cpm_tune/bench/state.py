"""The state of a suite's trials in a results folder, and how long runs there took.

A failed trial leaves a note in `OUT/.bench/failed/RUN_ID.json` until it is finished, the latest
suite its trials in `OUT/.bench/sweep.json`. Every file is written atomically, so the folder can be
read at any moment.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cpm_tune.bench.searched import Searched, found
from cpm_tune.bench.trials import Report, Trial
from cpm_tune.common.folders import (
    CHECKPOINT,
    FAILED,
    PARTIAL,
    RECORD,
    SWEEP,
    disk_trouble,
    partial_folder,
)
from cpm_tune.common.reading import read_json
from cpm_tune.common.writing import write_atomically
from cpm_tune.errors import UserError
from cpm_tune.runs.finished import finished
from cpm_tune.schema.record import RunRecord, read_record
from cpm_tune.search.plan import FOLDER

State = Literal["done", "failed", "unfinished", "new"]
Begun = frozenset[tuple[str, int, int, int | None]]  # runs: search, seed, and its budget


@dataclass(frozen=True)
class SuiteState:
    """A suite's trials, their states by run id, and the trials to do in the order of work.

    `runs`: by the same ids the runs' own, which differ for what a search has found.
    """

    trials: Sequence[Trial]
    states: dict[str, State]
    todo: Sequence[Trial]
    runs: dict[str, str]

    @property
    def done(self) -> int:
        """How many trials were finished before."""
        return sum(state == "done" for state in self.states.values())


def suite_state(out: Path, trials: Sequence[Trial], only_failed: bool = False) -> SuiteState:
    """Look up all trials in the results folder `out`.

    With `only_failed`, the trials to do are those that failed before and the controls they need.
    """
    states, runs = dict[str, State](), dict[str, str]()
    begun = _begun_runs(out) if any(trial.search for trial in trials) else None
    for trial in trials:
        states[trial.run_id], record = trial_state(out, trial, begun)
        if record is not None or trial.search is None:
            runs[trial.run_id] = trial.run_id if record is None else record.run_id
    todo = [trial for trial in trials if states[trial.run_id] != "done"]
    if only_failed:
        failed = [trial for trial in todo if states[trial.run_id] == "failed"]
        wanted = {name for trial in failed for name in (trial.run_id, trial.needs)}
        todo = [trial for trial in todo if trial.run_id in wanted]
    return SuiteState(trials, states, todo, runs)


def trial_state(
    out: Path, trial: Trial, runs_begun: Begun | None = None
) -> tuple[State, RunRecord | None]:
    """The state of a trial in the results folder `out`, and its record if it is done.
    `runs_begun`: those of the folder, if they are known already."""
    run_id: str | None = trial.run_id
    if trial.search is not None:
        run_id = found(out, trial.run_id)
    try:
        record = None if run_id is None else finished(out, run_id)
    except UserError:  # damaged: the trial will fail with a sentence that names the file
        record = None
    if record is not None:
        return "done", record
    if _note(out, trial.run_id).is_file():
        return "failed", None
    if trial.search is not None:
        return "unfinished" if _searched_begun(
            out, trial, trial.search, runs_begun
        ) else "new", None
    partial = partial_folder(out, trial.run_id)
    if not partial.is_dir():
        return "new", None
    begun = _json(partial / RECORD)
    stopped = (partial / CHECKPOINT).is_file() or begun.get("error") == "interrupted"
    return ("failed" if begun.get("status") == "failed" and not stopped else "unfinished"), None


def _searched_begun(out: Path, trial: Trial, how: Searched, begun: Begun | None) -> bool:
    """Whether the search that a trial carries out has begun, or the run of one that waits for it.
    The record of a control names no search."""
    if trial.control is not None:
        return False
    if trial.seed == how.seed:
        return (out / FOLDER / how.name).is_dir()
    begun = _begun_runs(out) if begun is None else begun
    return (how.name, trial.seed, how.trials, how.seconds) in begun


def _begun_runs(out: Path) -> Begun:
    """The runs in `out` with settings that a search found, which have begun and not ended."""
    begun = set[tuple[str, int, int, int | None]]()
    for path in out.glob(f"*{PARTIAL}/{RECORD}"):
        try:
            record = read_record(path)
        except UserError:  # half written, or of another version
            continue
        budget = record.spec.search
        if record.search is not None and budget is not None:
            run = (record.search.study, record.spec.seed, budget.trials, budget.seconds)
            begun.add(run)
    return frozenset(begun)


def note_trials(out: Path, trials: Sequence[Trial]) -> None:
    """Keep the names of a suite's trials by run id, for who watches the folder."""
    text = json.dumps({trial.run_id: trial.name for trial in trials}, ensure_ascii=False, indent=1)
    note = out / SWEEP
    with disk_trouble(note.parent):
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(note, text + "\n")


def note_failure(out: Path, trial: Trial, report: Report) -> None:
    """Keep the reason of a failure until the trial is finished."""
    note = _note(out, trial.run_id)
    texts = {"name": trial.name, "error": report.error, "detail": report.detail}
    text = json.dumps({"run_id": trial.run_id, **texts}, ensure_ascii=False, indent=1)
    with disk_trouble(note.parent):
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(note, text + "\n")


def forget_failure(out: Path, run_id: str) -> None:
    """Remove the note of an earlier failure, if there is one."""
    _note(out, run_id).unlink(missing_ok=True)


def _note(out: Path, run_id: str) -> Path:
    return out / FAILED / f"{run_id}.json"


def _json(path: Path) -> dict[str, Any]:
    try:
        values = read_json(path)
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


class History:
    """Seconds that the finished runs of a results folder took."""

    def __init__(self, out: Path) -> None:
        self._seconds: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for path in out.glob(f"*/{RECORD}"):
            record = _json(path)
            try:
                task, delta = record["spec"]["task"], record["delta"]["name"]
                seconds = float(record["environment"]["seconds"])
            except (KeyError, TypeError, ValueError):
                continue
            self.add(str(task), str(delta), seconds)

    def add(self, task: str, delta: str, seconds: float) -> None:
        """Count one more finished run."""
        self._seconds[task, delta].append(seconds)
        if delta != "none":
            self._seconds[(task,)].append(seconds)

    def seconds(self, trial: Trial) -> float | None:
        """Median time of runs of the same task and delta, else of the same task; None: unknown."""
        task, delta = trial.request.task, trial.delta
        keys = [(task, delta)] if delta == "none" else [(task, delta), (task,)]
        medians = (statistics.median(self._seconds[key]) for key in keys if key in self._seconds)
        return next(medians, None)

    def remaining(self, trials: Iterable[Trial], workers: int) -> tuple[float, int]:
        """Estimated seconds for these trials on so many workers, and the number of trials whose
        time is unknown."""
        times = [(self.seconds(trial), trial.nproc) for trial in trials]
        known = [(seconds, nproc) for seconds, nproc in times if seconds is not None]
        work = sum(seconds * nproc for seconds, nproc in known)
        longest = max((seconds for seconds, _ in known), default=0.0)
        return max(work / workers, longest), len(times) - len(known)
