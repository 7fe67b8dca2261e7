"""Carries out a plan: trains, scores, and leaves one record."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpm_tune.common.folders import (
    CHAT,
    CHECKPOINT,
    DELTA,
    OLD,
    RECORD,
    complete,
    disk_trouble,
    partial_folder,
    remove,
    run_folder,
    run_lock,
)
from cpm_tune.common.interrupt import Interrupts
from cpm_tune.common.paths import file_sha256
from cpm_tune.common.writing import write_atomically
from cpm_tune.engine.engine import Engine
from cpm_tune.errors import UserError
from cpm_tune.memory.out_of_memory import check_memory, memory_trouble
from cpm_tune.planning.inputs import (
    Inputs,
    load_backbone,
    odd_data,
    odd_scoring,
    read_inputs,
    used_splits,
)
from cpm_tune.planning.plan import Plan
from cpm_tune.runs.examined import examined
from cpm_tune.runs.finished import finished, other_numbers
from cpm_tune.runs.parts import environment_record, split_record
from cpm_tune.runs.training import Prepared, delta_record, deterministic, prepare, train_delta
from cpm_tune.schema.record import (
    ControlRecord,
    RunRecord,
    read_record,
    write_record,
)
from cpm_tune.tracking.sink import Entry, RunInfo
from cpm_tune.tracking.sinks import open_sinks
from cpm_tune.tuning.score import Selection, constant_control, score_split

Log = Callable[[Entry], None]


@dataclass(frozen=True)
class Outcome:
    """A run's record, its folder, and whether it had finished before."""

    record: RunRecord
    folder: Path
    reused: bool


def execute(
    plan: Plan,
    out: Path,
    inputs: Inputs | None = None,
    *,
    overwrite: bool = False,
    resume: bool = True,
    zero_shot: Outcome | Callable[[], Outcome] | None = None,
    wait: bool = False,
    say: Callable[[str], None] = lambda text: None,
    load: Callable[[Plan, Engine], Any] | None = None,
) -> Outcome:
    """Carry out a plan, unless a finished run with the same spec is in `out`.

    `inputs` are those of the plan, or of the plan that this one is a control of, if they have been
    read. `resume`: continue an unfinished run instead of starting again. `zero_shot` is the outcome
    of the same plan without delta, recorded as a control, or returns it: called when this run is
    scored and its backbone freed. `wait` for a process that
    works on the same run, instead of refusing. `say` prints what comes before the result. `load`
    returns the plan's backbone in place of `load_backbone`, and gets it back without the delta.

    Ctrl-C and SIGTERM raise Interrupted, with the work saved. Raises UserError for what the user
    can fix; any failure after training began is recorded. All processes of a run have to call this;
    the main one reads and writes in `out`, and all get the outcome.
    """
    run_id, inputs = plan.spec.run_id, (inputs or read_inputs(plan)).of(plan)
    engine, partial = inputs.engine, partial_folder(out, run_id)
    with Interrupts(speak=engine.main) as stop, contextlib.ExitStack() as stack:
        if engine.main:
            stack.enter_context(disk_trouble(partial))
            stack.enter_context(run_lock(out, run_id, wait))
        stack.enter_context(memory_trouble(plan, inputs))
        done = engine.broadcast(_done(out, run_id, overwrite, resume) if engine.main else None)
        if done is not None:
            return done
        check_memory(plan, inputs)
        prepared = prepare(plan, inputs, load or load_backbone)
        if engine.main:
            resumed = resume and (partial / CHECKPOINT).is_file()
            if resumed:
                say(f"resume     {partial}  (--no-resume starts again)")
            stack.enter_context(run_folder(out, run_id, resumed))
            write_record(partial, prepared.record)
            if plan.chat is not None:
                write_atomically(partial / CHAT, plan.chat)
        running = prepared.record
        if load is not None:
            stack.callback(prepared.delta.remove)
        try:
            services = plan.execution.track if engine.main else ()
            with open_sinks(services, RunInfo(plan.spec, partial, running.ranks_by)) as log:
                record = _tune_and_score(plan, prepared, partial, stop, log)
                log(_final_scores(record))
            if engine.main and plan.execution.shortcuts and record.training is not None:
                used = used_splits(plan, inputs.splits)
                record = examined(record, plan.task, used, partial)
            if callable(zero_shot):
                del prepared
                gc.collect()  # a delta inside its backbone is a cycle
                zero_shot = zero_shot()
            if zero_shot is not None:
                record = _with_zero_shot(record, zero_shot)
            if engine.main:
                write_record(partial, record)
                _tidy(partial)
        except BaseException as error:
            reason = str(error) or _name(error)
            failed = running.model_copy(update={"status": "failed", "error": reason})
            with contextlib.suppress(OSError):
                if engine.main:
                    write_record(partial, failed)
            raise
    return Outcome(engine.broadcast(record), out / run_id, reused=False)


def _done(out: Path, run_id: str, overwrite: bool, resume: bool) -> Outcome | None:
    """The run if it need not be carried out: finished before, or only its last renaming is left."""
    record, partial = None, partial_folder(out, run_id)
    try:
        record = finished(out, run_id)
    except UserError:  # a damaged record is replaced on request
        if not overwrite:
            raise
    remove(out / (run_id + OLD))  # of a process that was killed while it replaced the run
    if record is not None and not overwrite:
        remove(partial)
        return Outcome(record, out / run_id, reused=True)
    if resume and (partial / RECORD).is_file():
        with contextlib.suppress(UserError):
            record = read_record(partial / RECORD)
            if record.status == "finished":
                _tidy(partial)
                complete(out, run_id)
                return Outcome(record, out / run_id, reused=False)
    return None


def _name(error: BaseException) -> str:
    return "interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__


def _tidy(partial: Path) -> None:
    """Remove what only an unfinished run needs."""
    for path in (partial / CHECKPOINT, *partial.glob("*.part")):
        remove(path)


def _tune_and_score(
    plan: Plan, prepared: Prepared, folder: Path, stop: Interrupts, log: Log
) -> RunRecord:

    inputs, predictor, engine = prepared.inputs, prepared.predictor, prepared.inputs.engine
    splits = used_splits(plan, inputs.splits)
    with deterministic(engine) as is_deterministic:
        training = predictions = None
        if plan.spec.recipe is not None:
            selection = Selection(predictor, splits["dev"], plan.spec.recipe.dev_rows)
            training = train_delta(plan, prepared, folder, selection, stop, log)
            predictions = selection.predictions
        scored = {
            "dev": score_split(predictor, splits["dev"], folder, predictions),
            "test": score_split(predictor, splits["test"], folder),
        }
    inputs.encoder.stores.clear()  # a control opens its own

    controls = {}
    if splits["test"].labelled:
        n_best = plan.spec.decoding.n_best if plan.spec.decoding else 1
        controls["majority"] = constant_control(plan.task, splits, n_best)
    weights = folder / DELTA
    files = [path for part in scored.values() for path in part.files]
    return prepared.record.model_copy(
        update={
            "status": "finished",
            "data": {
                name: split_record(plan.task, split, len(inputs.splits[name]), scored.get(name))
                for name, split in splits.items()
            },
            "delta": delta_record(plan, inputs, weights if weights.exists() else None),
            "scores": {name: part.scores for name, part in scored.items() if part.scores},
            "controls": controls,
            "warnings": [
                *odd_data(plan, inputs),
                *odd_scoring(plan, inputs),
                *(w for part in scored.values() for w in part.warnings),
            ],
            "training": training,
            "predictions": {str(path.relative_to(folder)): file_sha256(path) for path in files},
            "environment": environment_record(engine, prepared.meter, is_deterministic),
        }
    )


def _with_zero_shot(record: RunRecord, zero_shot: Outcome) -> RunRecord:
    """The record with this control, if the test split has gold answers."""
    if not record.labelled:
        return record
    test, run_id = zero_shot.record.test, zero_shot.record.run_id
    note = other_numbers(zero_shot.record)
    control = ControlRecord(
        value=test.value, low=test.low, high=test.high, run_id=run_id, note=note
    )
    return record.model_copy(update={"controls": {**record.controls, "zero-shot": control}})


def _final_scores(record: RunRecord) -> Entry:
    """The final scores as an entry: final/SPLIT/METRIC."""
    values = {
        f"final/{split}/{name}": score.value
        for split, scores in record.scores.items()
        for name, score in scores.items()
    }
    return Entry(record.training.steps + 1 if record.training else 0, time.time(), values)
