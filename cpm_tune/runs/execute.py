"""Carries out a plan: trains, scores, and leaves one record."""

from __future__ import annotations

import contextlib
import datetime
import gc
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cpm_tune.backbone.shards import whole_shape
from cpm_tune.common.environment import (
    git_state,
    package_versions,
    peak_memory_bytes,
    reset_peak_memory,
)
from cpm_tune.common.folders import (
    CHECKPOINT,
    DELTA,
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
from cpm_tune.data.batches import total_steps
from cpm_tune.delta.insert import frozen_checksum, insert
from cpm_tune.engine import Engine
from cpm_tune.errors import UserError
from cpm_tune.memory.out_of_memory import memory_trouble
from cpm_tune.metrics import get_metric
from cpm_tune.planning.inputs import Inputs, encoder_of, load_backbone, read_inputs, unofficial
from cpm_tune.planning.plan import Plan
from cpm_tune.runs.finished import finished
from cpm_tune.schema.record import (
    BackboneRecord,
    ControlRecord,
    CurvePoint,
    DeltaRecord,
    EnvironmentRecord,
    RunRecord,
    SplitRecord,
    TrainingRecord,
    read_record,
    write_record,
)
from cpm_tune.tracking.track import Tracking, tracking
from cpm_tune.tuning.progress import Reporter
from cpm_tune.tuning.resume import Checkpoints
from cpm_tune.tuning.score import Selection, constant_control, score_split
from cpm_tune.tuning.train import train


@dataclass(frozen=True)
class Outcome:
    """A run's record, its folder, and whether it was there already."""

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
    live: bool = False,
    zero_shot: Outcome | Callable[[], Outcome] | None = None,
    wait: bool = False,
    say: Callable[[str], None] = lambda text: None,
    load: Callable[[Plan, Engine], Any] | None = None,
) -> Outcome:
    """Carry out a plan, unless a finished run with the same spec is in `out`.

    `say` takes what is to be told before the result. `inputs` are the plan's, if they have been
    read already. `resume`: go on with an unfinished run, instead of starting again. `zero_shot` is
    the outcome of the same plan without delta, recorded as a control, or returns it: asked when
    this run is scored and its backbone out of memory. `wait` for a process that is
    at work on the same run, instead of refusing. Ctrl-C and SIGTERM raise Interrupted, with what is
    done kept. `load` returns the plan's backbone in place of `load_backbone`, and gets it back
    without the delta. Raises UserError for what the user can mend; any failure after training
    began is recorded.

    Of several processes all have to call this, the main one reads and writes in `out`, and all get
    the outcome.
    """
    run_id, inputs = plan.spec.run_id, inputs or read_inputs(plan)
    engine, partial = inputs.engine, partial_folder(out, plan.spec.run_id)
    with Interrupts(speak=engine.main) as stop, contextlib.ExitStack() as held:
        if engine.main:
            held.enter_context(disk_trouble(partial))
            held.enter_context(run_lock(out, run_id, wait))
        held.enter_context(memory_trouble(plan, engine))
        done = engine.broadcast(_there(out, run_id, overwrite, resume) if engine.main else None)
        if done is not None:
            return done
        prepared = _prepare(plan, inputs, load or load_backbone)
        if engine.main:
            keep = resume and (partial / CHECKPOINT).is_file()
            if keep:
                say(f"resume     {partial}  (--no-resume starts again)")
            held.enter_context(run_folder(out, run_id, keep))
            write_record(partial, prepared.record)
        begun = prepared.record
        if load is not None:
            held.callback(prepared.delta.remove)
        try:
            wanted = plan.execution.track if engine.main else ()
            with tracking(wanted, plan.spec, partial) as track:
                record = _tune_and_score(plan, prepared, partial, live, stop, track)
                _track_scores(record, track)
            if callable(zero_shot):
                del prepared
                gc.collect()  # a delta inside its backbone is a cycle
                zero_shot = zero_shot()
            if zero_shot is not None:
                record = _with_zero_shot(record, zero_shot)
            if engine.main:
                _finish(partial, record)
        except BaseException as error:
            said = str(error) or _name(error)
            failed = begun.model_copy(update={"status": "failed", "error": said})
            with contextlib.suppress(OSError):
                if engine.main:
                    write_record(partial, failed)
            raise
    return Outcome(engine.broadcast(record), out / run_id, reused=False)


def _there(out: Path, run_id: str, overwrite: bool, resume: bool) -> Outcome | None:
    """The run that need not be run: finished before, or whole but for its last renaming."""
    done = finished(out, run_id)
    if done is not None and not overwrite:
        remove(partial_folder(out, run_id))
        return Outcome(done, out / run_id, reused=True)
    partial = partial_folder(out, run_id)
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


def _finish(partial: Path, record: RunRecord) -> None:
    write_record(partial, record)
    _tidy(partial)


def _tidy(partial: Path) -> None:
    """Remove what only an unfinished run needs."""
    for path in (partial / CHECKPOINT, *partial.glob("*.part")):
        remove(path)


@dataclass(frozen=True)
class _Prepared:
    """Everything that can be wrong with the input has been read and found right."""

    started: float
    model: Any
    delta: Any
    inputs: Inputs
    record: RunRecord


def _prepare(plan: Plan, inputs: Inputs, load: Callable[[Plan, Engine], Any]) -> _Prepared:

    reset_peak_memory()
    started, spec = time.perf_counter(), plan.spec
    model = load(plan, inputs.engine)
    n_parameters = sum(whole_shape(p).numel() for p in model.parameters())
    tokenizer = inputs.encoder.tokenizer
    delta = insert(model, plan.delta, spec.backbone.sha256, spec.seed, tokenizer)
    inputs = replace(inputs, encoder=encoder_of(plan, tokenizer))  # a control has another
    notes = [*plan.notes, *unofficial(plan, inputs)]
    record = RunRecord(
        status="running",
        run_id=spec.run_id,
        spec_sha256=spec.sha256,
        spec=spec,
        execution=plan.execution,
        ranks_by=plan.task.metrics[0],
        comparable=not notes,
        note="; ".join(notes),
        backbone=BackboneRecord(
            name=plan.folder.name,
            path=str(plan.folder.path),
            sha256=spec.backbone.sha256,
            trained=plan.folder.trained and spec.backbone.init == "checkpoint",
            n_parameters=n_parameters,
        ),
        delta=DeltaRecord(
            name=plan.delta_name, n_trainable=delta.n_trainable, bytes=0, sha256=None
        ),
    )
    return _Prepared(started, inputs.engine.prepare(model), delta, inputs, record)


def _tune_and_score(
    plan: Plan,
    prepared: _Prepared,
    folder: Path,
    live: bool,
    stop: Interrupts,
    track: Tracking,
) -> RunRecord:
    import torch

    spec, inputs, engine = plan.spec, prepared.inputs, prepared.inputs.engine
    deterministic = engine.device.type == "cpu"
    before = torch.get_deterministic_debug_mode()
    # What use_deterministic_algorithms does without importing torch's compiler: 60 MB, a second.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    # Nothing here reads memory before it is written: filling it costs time and changes nothing.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        training, found = None, None
        if spec.recipe:
            selection = Selection(plan, prepared.model, inputs)
            training = _train(plan, prepared, folder, live, selection, stop, track)
            found = selection.predictions
        scored = {
            split: score_split(plan, prepared.model, inputs, split, folder, known)
            for split, known in (("dev", found), ("test", None))
        }
    finally:
        torch.set_deterministic_debug_mode(before)

    controls = {}
    if inputs.splits["test"].labelled:
        controls["majority"] = constant_control(plan, inputs)
    weights = folder / DELTA
    sha, dirty = git_state()
    data = {}
    for name, split in inputs.splits.items():
        part = scored.get(name)
        data[name] = SplitRecord(
            path=", ".join(map(str, split.file.paths)),
            sha256=split.file.sha256,
            n=len(split),
            n_skipped=split.n_skipped,
            n_truncated=part.n_truncated if part else None,
            n_unparsed=part.n_unparsed if part else 0,
            labelled=split.labelled,
        )
    return prepared.record.model_copy(
        update={
            "status": "finished",
            "data": data,
            "delta": DeltaRecord(
                name=plan.delta_name,
                n_trainable=prepared.delta.n_trainable,
                bytes=weights.stat().st_size if weights.exists() else 0,
                sha256=file_sha256(weights) if weights.exists() else None,
            ),
            "scores": {name: part.scores for name, part in scored.items() if part.scores},
            "controls": controls,
            "warnings": [w for part in scored.values() for w in part.warnings],
            "training": training,
            "predictions": {
                str(path.relative_to(folder)): file_sha256(path)
                for part in scored.values()
                for path in part.files
            },
            "environment": EnvironmentRecord(
                packages=package_versions(),
                python=platform.python_version(),
                git_sha=sha,
                git_dirty=dirty,
                device=str(engine.device),
                engine=engine.name,
                world_size=engine.world_size,
                threads=torch.get_num_threads(),
                deterministic=deterministic,
                peak_memory_bytes=peak_memory_bytes(),
                seconds=round(time.perf_counter() - prepared.started, 3),
                finished_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            ),
        }
    )


def _with_zero_shot(record: RunRecord, zero_shot: Outcome) -> RunRecord:
    """The record with this control, where the test split has answers."""
    if not record.labelled:
        return record
    test = zero_shot.record.test
    control = ControlRecord(
        value=test.value, low=test.low, high=test.high, run_id=zero_shot.record.run_id
    )
    return record.model_copy(update={"controls": {**record.controls, "zero-shot": control}})


def _track_scores(record: RunRecord, track: Tracking) -> None:
    """Send the final scores, named final/SPLIT/METRIC."""
    values = {
        f"final/{s}/{m}": score.value
        for s, part in record.scores.items()
        for m, score in part.items()
    }
    track.log(record.training.steps + 1 if record.training else 0, values)


def _train(
    plan: Plan,
    prepared: _Prepared,
    folder: Path,
    live: bool,
    selection: Selection,
    stop: Interrupts,
    track: Tracking,
) -> TrainingRecord:

    recipe, inputs, engine = plan.spec.recipe, prepared.inputs, prepared.inputs.engine
    assert recipe is not None
    rows = inputs.splits["train"].rows
    metric = get_metric(plan.task.metrics[0])
    total = total_steps(len(rows), recipe)

    checksum = frozen_checksum(prepared.model, prepared.delta)
    keep = Checkpoints(
        folder,
        {"spec": plan.spec.sha256},
        prepared.delta,
        engine,
        selection,
        plan.execution.checkpoint_minutes,
    )
    with (
        Reporter(folder, total, metric.name, live, keep.state, track)
        if engine.main
        else contextlib.nullcontext(lambda event: None) as report
    ):
        state = train(
            prepared.model,
            prepared.delta,
            rows,
            inputs.encoder,
            engine,
            recipe,
            plan.spec.seed,
            total=total,
            micro_tokens=plan.execution.micro_tokens,
            evaluate=selection.score,
            higher_is_better=metric.higher_is_better,
            report=report,
            improved=selection.improved,
            keep=keep,
            stop=stop,
        )
    if engine.main:
        prepared.delta.save(folder, state.best)
    if frozen_checksum(prepared.model, prepared.delta) != checksum:
        raise RuntimeError("frozen backbone parameters changed during training; this is a bug")
    return TrainingRecord(
        steps=state.step,
        best_step=state.best_step,
        stopped_early=state.stopped_early,
        skipped_steps=state.n_skipped,
        micro_tokens=state.micro_tokens or None,
        curve=[CurvePoint(step=e.step, loss=e.loss, dev=e.dev) for e in state.curve],
        samples_per_second=round(state.n_samples / state.seconds, 3),
        seconds=round(state.seconds, 3),
    )
