"""The training of a run: its backbone with the delta in, made ready, and its delta trained."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cpm_tune.common.energy import RunMeter
from cpm_tune.common.environment import reset_peak_memory
from cpm_tune.common.interrupt import Interrupts
from cpm_tune.common.paths import file_sha256
from cpm_tune.common.progress import working
from cpm_tune.data.batches import total_steps
from cpm_tune.delta.insert import Delta, frozen_checksum, insert
from cpm_tune.engine.engine import Engine
from cpm_tune.planning.inputs import Inputs, unofficial, used_splits
from cpm_tune.planning.plan import Plan
from cpm_tune.runs.parts import split_record
from cpm_tune.schema.record import (
    BackboneRecord,
    CurvePoint,
    DeltaRecord,
    RunRecord,
    TrainingRecord,
)
from cpm_tune.tracking.sink import Entry, RunInfo
from cpm_tune.tracking.sinks import open_sinks
from cpm_tune.tuning.predict import Predictor, make_predictor
from cpm_tune.tuning.progress import entries_until, reporter
from cpm_tune.tuning.resume import Checkpoints
from cpm_tune.tuning.score import Selection
from cpm_tune.tuning.stopping import StopRule, stop_rule
from cpm_tune.tuning.train import Training, train
from cpm_tune.version import NUMBERS


@dataclass(frozen=True)
class Prepared:
    """A run whose inputs are read, checked and loaded, and its record so far."""

    meter: RunMeter
    predictor: Predictor
    delta: Delta
    inputs: Inputs
    record: RunRecord


def prepare(plan: Plan, inputs: Inputs, load: Callable[[Plan, Engine], Any]) -> Prepared:
    """Load a run's backbone and put its delta in."""
    spec, engine = plan.spec, inputs.engine
    meter = RunMeter(engine.device)
    reset_peak_memory(engine.device)
    with working("loading the backbone"):
        model = load(plan, engine)
    tokenizer = inputs.encoder.tokenizer
    delta = insert(model, plan.delta, spec.backbone.sha256, spec.seed, tokenizer)
    notes = [*plan.notes, *unofficial(plan, inputs)]
    record = RunRecord(
        status="running",
        run_id=spec.run_id,
        spec_sha256=spec.sha256,
        spec=spec,
        execution=plan.execution,
        ranks_by=plan.task.metrics[0],
        scoring=plan.scoring,
        numbers=NUMBERS,
        comparable=not notes,
        note="; ".join(notes),
        search=plan.search,
        data={
            name: split_record(plan.task, split, len(inputs.splits[name]), None)
            for name, split in used_splits(plan, inputs.splits).items()
        },
        backbone=BackboneRecord(
            name=plan.folder.name,
            path=str(plan.folder.path),
            sha256=spec.backbone.sha256,
            trained=plan.folder.trained and spec.backbone.init == "checkpoint",
            n_parameters=inputs.skeleton.n_backbone,
        ),
        delta=delta_record(plan, inputs, None),
    )
    predictor = make_predictor(plan, engine.prepare(model), inputs.encoder, engine)
    return Prepared(meter, predictor, delta, inputs, record)


def delta_record(plan: Plan, inputs: Inputs, weights: Path | None) -> DeltaRecord:
    """What was trained; its file, once it is saved."""
    return DeltaRecord(
        name=plan.delta_name,
        n_trainable=inputs.skeleton.n_trained,
        bytes=weights.stat().st_size if weights else 0,
        sha256=file_sha256(weights) if weights else None,
    )


@contextlib.contextmanager
def deterministic(engine: Engine) -> Iterator[bool]:
    """Operations on a CPU are deterministic inside; yield whether they are."""
    on_cpu = engine.device.type == "cpu"
    before = torch.get_deterministic_debug_mode()
    # What use_deterministic_algorithms does without importing torch's compiler: 60 MB, a second.
    torch.set_deterministic_debug_mode("error" if on_cpu else "default")
    # Nothing here reads memory before it is written: filling it costs time and changes nothing.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield on_cpu
    finally:
        torch.set_deterministic_debug_mode(before)


def train_delta(
    plan: Plan,
    prepared: Prepared,
    folder: Path,
    selection: Selection,
    stop: Interrupts,
    *logs: Callable[[Entry], None],
    ruled: Callable[[StopRule, int], StopRule] = lambda rule, _: rule,
) -> TrainingRecord:
    """Train a run's delta and save it in its folder; a checkpoint there is continued.

    `ruled` makes of the recipe's stopping rule and the number of evaluations at most the rule that
    is followed.
    """
    recipe, inputs, engine = plan.spec.recipe, prepared.inputs, prepared.inputs.engine
    assert recipe is not None
    model, delta, metric = prepared.predictor.model, prepared.delta, selection.metric
    rows = used_splits(plan, inputs.splits)["train"].rows
    n_rows = recipe.rows_used(len(rows))
    training = Training(
        model,
        delta,
        rows.first(n_rows),
        inputs.encoder,
        engine,
        recipe,
        plan.spec.seed,
        ruled(
            stop_rule(recipe, metric.higher_is_better),
            math.ceil(total_steps(n_rows, recipe) / recipe.eval_every),
        ),
        plan.execution.micro_tokens,
    )
    checksum = frozen_checksum(model, delta)
    identity, minutes = {"spec": plan.spec.training_sha256}, plan.execution.checkpoint_minutes
    checkpoints = Checkpoints(folder, identity, delta, engine, selection, minutes)
    names = ["log", "tensorboard", "progress"] if engine.main else []
    earlier = entries_until(folder, checkpoints.state, metric.name) if engine.main else []
    run = RunInfo(plan.spec, folder, metric.name, training.total, earlier)
    with open_sinks(names, run) as log_training:
        report = reporter(metric.name, log_training, *logs)
        state = train(training, selection, checkpoints, report, stop)
    if engine.main:
        delta.save(folder, state.best)
    if frozen_checksum(model, delta) != checksum:
        raise RuntimeError("frozen backbone parameters changed during training; this is a bug")
    return TrainingRecord(
        steps=state.step,
        best_step=state.curve[training.rule.best(state.scores)].step,
        stopped_early=training.rule.stops(state.scores),
        skipped_steps=state.n_skipped,
        micro_tokens=state.micro_tokens or None,
        curve=[CurvePoint(step=e.step, loss=e.loss, dev=e.dev) for e in state.curve],
        samples_per_second=round(state.n_samples / state.seconds, 3),
        seconds=round(state.seconds, 3),
    )
