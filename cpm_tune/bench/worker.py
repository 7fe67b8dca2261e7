"""What a worker process does: one trial after another, with one backbone and one reading of data.

Nothing here knows who sends the trials: `Worker.run` is the one place where a trial is run, in this
process or in a group of processes (`bench.group`).
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from cpm_tune.backbone.base import Backbone
from cpm_tune.bench.searched import Searched, note_found
from cpm_tune.bench.trials import Report, Trial, controlled, plan_of
from cpm_tune.common.progress import Lines, shown
from cpm_tune.data.store import Split
from cpm_tune.engine.device import give_back, is_device_lost
from cpm_tune.engine.engine import Engine
from cpm_tune.engine.launch import launch
from cpm_tune.engine.rank import rank_info
from cpm_tune.errors import ProcessLostError, UserError
from cpm_tune.planning.inputs import Inputs, load_backbone, read_inputs
from cpm_tune.planning.plan import Plan
from cpm_tune.runs.execute import execute
from cpm_tune.runs.finished import finished
from cpm_tune.runs.shared import SharedBackbone
from cpm_tune.search.trials import find, hand_over

_TRIAL = TypeAdapter(Trial)


class Worker:
    """Runs trials in this process, on `threads` threads unless run.threads overrides it.

    Keeps the last backbone that it loaded and the last data that it read.
    """

    def __init__(self, out: Path, threads: int) -> None:
        self._out, self._threads = out, threads
        self._backbone = SharedBackbone()
        self._splits: tuple[Any, dict[str, Split]] | None = None

    def run(self, trial: Trial, gpus: str | None = None, lines: bool = False) -> Report:
        """Run a trial, unless it is finished already; its errors are in the report.

        A trial of several processes has them as children of this one, on the GPUs that `gpus`
        lists as CUDA_VISIBLE_DEVICES does (None: all that this process sees). `lines`: print how
        far it is to standard error.
        """
        started = time.perf_counter()
        torch.set_num_threads(self._threads)
        report = Report("finished")
        try:
            if trial.nproc > 1:
                self._run_group(trial, gpus, lines)
            else:
                with shown(Lines(trial.name), unless=not lines):
                    _run(trial, self._out, self._inputs, self._backbone.load)
                self._backbone.check()
        except ProcessLostError as error:  # of its group
            report = Report("lost", error=str(error))
        except Exception as error:  # the next trials are run, whatever happened in this one
            self._backbone.forget()  # it may contain a delta
            problem = _as_user_error(error)
            text = " ".join(str(problem).split())
            detail = "\n".join(getattr(problem, "__notes__", ()))
            report = Report("failed", error=text, detail=detail, last=is_device_lost(error))
        return replace(report, seconds=time.perf_counter() - started)

    def _run_group(self, trial: Trial, gpus: str | None, lines: bool) -> None:
        self._splits = None  # the group needs the memory
        self._backbone.forget()
        give_back()
        plan = plan_of(trial) if trial.search is None else trial.search.search(trial.request).plan
        if trial.search is not None or finished(self._out, trial.run_id) is None:
            environment = {"OMP_NUM_THREADS": str(plan.execution.threads or self._threads)}
            if gpus is not None:
                environment["CUDA_VISIBLE_DEVICES"] = gpus
            argv = [str(self._out.absolute()), _TRIAL.dump_json(trial).decode(), *["lines"] * lines]
            launch(argv, trial.nproc, module="cpm_tune.bench.group", environment=environment)

    def _inputs(self, plan: Plan) -> Inputs:
        key = (plan.spec.task, plan.spec.task_version, plan.spec.data)
        known = self._splits[1] if self._splits is not None and self._splits[0] == key else None
        inputs = read_inputs(plan, known)
        self._splits = (key, inputs.splits)
        return inputs


def _run(
    trial: Trial,
    out: Path,
    read: Callable[[Plan], Inputs] = read_inputs,
    load: Callable[[Plan, Engine], Backbone] | None = None,
) -> None:
    """Run a trial with its zero-shot control, as this process or as one of its group."""
    if trial.search is not None:
        _search(trial, trial.search, out, read, load)
        return
    plan = plan_of(trial)
    inputs, zero_shot = read(plan), None
    if trial.needs is not None:
        zero_shot = execute(plan.zero_shot(), out, inputs, wait=True, load=load)
    execute(plan, out, inputs, zero_shot=zero_shot, wait=True, load=load)


def _search(
    trial: Trial,
    how: Searched,
    out: Path,
    read: Callable[[Plan], Inputs],
    load: Callable[[Plan, Engine], Backbone] | None,
) -> None:
    """Carry out what is left of a trial's search, then the run, or control, with what it found."""
    search = how.search(trial.request)
    if search.name != how.name:
        raise UserError(
            f"{trial.name}: its files changed after the suite was planned. Run the command again."
        )
    first, opened = read(search.plan), load or load_backbone
    engine = first.engine
    record, values = find(search, out, opened, engine, known=first.splits, wait=True)
    plan, zero_shot = search.run_plan(values, record, trial.request.seed), None
    if engine.main and trial.control is None:
        hand_over(search, out, plan, values)
    plan = controlled(plan, trial.control)
    inputs = read(plan)
    if how.zero_shot and trial.control is None:
        zero_shot = execute(plan.zero_shot(), out, inputs, wait=True, load=load)
    execute(plan, out, inputs, zero_shot=zero_shot, wait=True, load=load)
    if engine.main:
        note_found(out, trial.run_id, plan.spec.run_id)


def _as_user_error(error: Exception) -> UserError:
    """The error itself, or for a bug one sentence with the traceback as a note."""
    if isinstance(error, UserError):
        return error
    sentence = UserError(f"{type(error).__name__}: {error}")
    sentence.add_note(traceback.format_exc())
    return sentence


def run_in_group(argv: Sequence[str]) -> int:
    """Run a trial as one process of its group, and raise its errors.

    The command line is a results folder, a trial as JSON, and "lines" to print the progress.
    """
    try:
        trial = _TRIAL.validate_json(argv[1])
        silent = "lines" not in argv or rank_info(os.environ).rank != 0
        with shown(Lines(trial.name), unless=silent):
            _run(trial, Path(argv[0]))
    except (UserError, ProcessLostError):
        raise
    except Exception as error:  # reported, not printed into the table of the others
        raise _as_user_error(error) from error
    return 0
