"""Carries out the trials of a search: training and dev alone. Test is not read by any of them."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cpm_tune.common.folders import PARTIAL, RECORD, disk_trouble, partial_folder, remove, run_lock
from cpm_tune.common.interrupt import Interrupts
from cpm_tune.data.store import Split
from cpm_tune.engine.engine import Engine
from cpm_tune.errors import NotFiniteError, UserError
from cpm_tune.memory.out_of_memory import check_memory, memory_trouble
from cpm_tune.metrics import get_metric
from cpm_tune.planning.inputs import read_inputs
from cpm_tune.planning.plan import Plan
from cpm_tune.runs.training import deterministic, prepare, train_delta
from cpm_tune.schema.record import SearchRecord, TrainingRecord, TrialRecord, read_record
from cpm_tune.search.plan import Search
from cpm_tune.search.rule import Pruned
from cpm_tune.search.space import size_of
from cpm_tune.search.study import Study, Trial
from cpm_tune.tuning.score import Selection

Load = Callable[[Plan, Engine], Any]
Watch = Callable[[int, TrialRecord, bool], None]


def find(
    search: Search,
    out: Path,
    load: Load,
    engine: Engine,
    *,
    known: Mapping[str, Split] | None = None,
    wait: bool = False,
    watch: Watch = lambda number, record, new: None,
) -> tuple[SearchRecord, Mapping[str, Any]]:
    """Carry out the trials that are left, and return them with the values of the best one.

    `watch` gets every trial that ended, with its number from 1 and whether it is a new one. `wait`
    for a process that works on the same search, instead of refusing. All processes of `engine` have
    to call this: the main one has the study, the others train with it, and all return the same.
    Raises Interrupted with the search saved, and UserError if all trials failed.
    """
    if not engine.main:
        return _follow(search, search.folder(out), load, engine, known)
    folder = search.folder(out)
    busy = f"{folder}: another process is working on this search"
    with contextlib.ExitStack() as stack:
        stack.enter_context(disk_trouble(folder))
        stack.enter_context(run_lock(out, search.name, wait, busy))
        folder.mkdir(parents=True, exist_ok=True)
        metric = get_metric(search.plan.task.metrics[0])
        study = Study(folder, search.space, search.spec.seed, metric.higher_is_better)
        sign = 1 if metric.higher_is_better else -1
        for number, record in enumerate(study.records(), 1):
            watch(number, record, False)
        while not _done(search, records := study.records()):
            trial = study.next(search.first)
            number = len(records) + 1
            _carry_out(search, trial, records, folder, load, engine, known)
            records = study.records()
            _tidy(search, folder, records, sign)
            watch(number, records[-1], True)
    records = records[: search.spec.trials]
    best = best_of(records, sign)
    if best is None:
        raise UserError(
            f"all {len(records)} trials failed, the first one because: {records[0].error} "
            f"The trials are in {folder}; remove it to begin again."
        )
    trials = SearchRecord(
        study=search.name,
        metric=search.plan.task.metrics[0],
        chosen=best,
        seconds=round(math.fsum(each.seconds for each in records), 3),
        trials=records,
        earlier=_earlier(search, out),
    )
    values = values_of(search, records[best - 1])
    engine.broadcast(("found", (trials, values)))
    return trials, values


def _follow(
    search: Search, folder: Path, load: Load, engine: Engine, known: Mapping[str, Split] | None
) -> tuple[SearchRecord, Mapping[str, Any]]:
    """Train what the main process trains, until it has found the best trial."""
    while True:
        message: tuple[str, Any] = engine.broadcast(("", None))
        what, content = message
        if what == "found":
            found: tuple[SearchRecord, Mapping[str, Any]] = content
            return found
        plan = search.trial_plan(content)
        place = partial_folder(folder, plan.spec.run_id)
        with contextlib.suppress(NotFiniteError):  # the main process has it too, and notes it
            _train(plan, place, None, search, load, engine, known)


def _earlier(search: Search, out: Path) -> list[str]:
    """The ids of runs of this search with another budget that are scored on test."""
    spec, earlier = search.plan.spec, []
    for path in sorted(out.glob(f"{spec.task}.{spec.delta['delta_type']}.*/{RECORD}")):
        with contextlib.suppress(UserError):
            run = read_record(path)
            same = run.search is not None and run.search.study == search.name
            if same and run.spec.search != search.spec and run.status == "finished":
                earlier.append(run.run_id)
    return earlier


def _done(search: Search, records: list[TrialRecord]) -> bool:
    """Whether the budget is used, or every point of the space was tried."""
    spec, points = search.spec, size_of(search.space)
    if len(records) >= spec.trials:
        return True
    if points is not None and len({str(record.settings) for record in records}) >= points:
        return True
    used = math.fsum(record.seconds for record in records)
    return spec.seconds is not None and bool(records) and used >= spec.seconds


def best_of(records: list[TrialRecord], sign: int) -> int | None:
    """The number (from 1) of the finished trial with the best dev score, the first of equal ones;
    None if none finished."""
    scores = [
        (sign * record.dev, -number)
        for number, record in enumerate(records, 1)
        if record.state == "finished" and record.dev is not None
    ]
    return -max(scores)[1] if scores else None


def values_of(search: Search, record: TrialRecord) -> dict[str, Any]:
    """The values of a trial's settings."""
    return {key: search.space[key].parse(text) for key, text in record.settings.items()}


def _carry_out(
    search: Search,
    trial: Trial,
    records: list[TrialRecord],
    folder: Path,
    load: Load,
    engine: Engine,
    known: Mapping[str, Split] | None,
) -> None:
    started = time.monotonic()
    trial.note(settings=trial.settings)
    if earlier := trial.repeats(records):
        of = records[earlier - 1]
        trial.note(repeats=earlier, steps=of.steps, dev=of.dev)
        trial.end_as(of)
        return
    others_wait = False
    try:
        plan = search.trial_plan(trial.values)
        place = partial_folder(folder, plan.spec.run_id)
        place.mkdir(exist_ok=True)
        others_wait = engine.world_size > 1
        engine.broadcast(("train", trial.values))
        training, rule = _train(plan, place, trial, search, load, engine, known)
    except UserError as error:  # such as a loss that is not finite; the next trial is carried out
        trial.note(seconds=time.monotonic() - started)
        trial.fail(" ".join(str(error).split()))
        if others_wait and not isinstance(error, NotFiniteError):
            raise  # the others may not have failed
        return
    except BaseException:
        trial.note(seconds=time.monotonic() - started)
        raise
    trial.note(seconds=time.monotonic() - started, steps=training.steps)
    if not math.isfinite(training.best_dev):
        trial.fail(f"the dev score is {training.best_dev}")
        return
    trial.note(dev=training.best_dev)
    if rule.pruned:
        trial.prune()
    else:
        trial.finish(training.best_dev)


def _train(
    plan: Plan,
    place: Path,
    trial: Trial | None,
    search: Search,
    load: Load,
    engine: Engine,
    known: Mapping[str, Split] | None,
) -> tuple[TrainingRecord, Pruned]:
    """Train a trial's delta; a checkpoint in its folder is continued. Only the main process has the
    trial itself."""
    inputs = read_inputs(plan, known)
    inputs = replace(inputs, splits={k: v for k, v in inputs.splits.items() if k != "test"})
    rules: list[Pruned] = []
    started = time.monotonic()

    def ruled(rule: Any, most: int) -> Pruned:
        rules.append(Pruned(rule, most, trial, search.spec.pruner is not None, started, engine))
        return rules[-1]

    with Interrupts(speak=engine.main) as stop, contextlib.ExitStack() as stack:
        stack.enter_context(memory_trouble(plan, inputs))
        check_memory(plan, inputs)
        prepared = prepare(plan, inputs, load)
        stack.callback(prepared.delta.remove)
        with deterministic(inputs.engine):
            assert plan.spec.recipe is not None
            dev = inputs.splits["dev"]
            selection = Selection(prepared.predictor, dev, plan.spec.recipe.dev_rows)
            training = train_delta(plan, prepared, place, selection, stop, ruled=ruled)
    return training, rules[0]


def _tidy(search: Search, folder: Path, records: list[TrialRecord], sign: int) -> None:
    """Keep the folder of the best trial alone: the run continues from it."""
    best = best_of(records, sign)
    kept = set()
    if best is not None:
        kept.add(search.trial_plan(values_of(search, records[best - 1])).spec.run_id + PARTIAL)
    for path in folder.glob(f"*{PARTIAL}"):
        if path.name not in kept:
            remove(path)


def hand_over(search: Search, out: Path, plan: Plan, values: Mapping[str, Any]) -> None:
    """Give the best trial's folder to the run with its settings, which then need not be trained
    again; if the run has begun, or is another seed's, nothing is done."""
    run_id = plan.spec.run_id
    if plan.spec.seed != search.spec.seed:
        return
    trained = partial_folder(search.folder(out), search.trial_plan(values).spec.run_id)
    place = partial_folder(out, run_id)
    if trained.is_dir() and not place.exists() and not (out / run_id).exists():
        os.replace(trained, place)
