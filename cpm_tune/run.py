"""Carries out a plan: reads, trains, scores, and leaves one record."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpm_tune.environment import git_state, package_versions, peak_memory_bytes
from cpm_tune.folders import remove, run_folder, run_lock
from cpm_tune.metrics import get_metric, majority
from cpm_tune.plan import Plan
from cpm_tune.record import (
    FILE,
    BackboneRecord,
    ControlRecord,
    CurvePoint,
    DeltaRecord,
    EnvironmentRecord,
    RunRecord,
    ScoreRecord,
    SplitRecord,
    TrainingRecord,
    read_record,
    write_atomically,
    write_record,
)
from cpm_tune.task import SPLITS


@dataclass(frozen=True)
class Outcome:
    """A run's record, its folder, and whether it was there already."""

    record: RunRecord
    folder: Path
    reused: bool


def finished(out: Path, run_id: str) -> RunRecord | None:
    """The record of a finished run, or None."""
    old = out / f"{run_id}.old"
    if old.exists() and not (out / run_id).exists():  # killed while one replaced the other
        os.replace(old, out / run_id)
    path = out / run_id / FILE
    if not path.is_file():
        return None
    record = read_record(path)
    return record if record.status == "finished" else None


def execute(
    plan: Plan,
    out: Path,
    *,
    overwrite: bool = False,
    live: bool = False,
    zero_shot: Outcome | None = None,
    wait: bool = False,
) -> Outcome:
    """Carry out a plan, unless a finished run with the same spec is in `out`.

    `zero_shot` is the outcome of the same plan without delta, recorded as a control. `wait` for a
    process that is at work on the same run, instead of refusing. Raises UserError for what the user
    can mend; any failure after training began is recorded.
    """
    run_id = plan.spec.run_id
    with run_lock(out, run_id, wait):
        done = finished(out, run_id)
        if done is not None and not overwrite:
            remove(out / f"{run_id}.partial")
            return Outcome(done, out / run_id, reused=True)
        prepared = _prepare(plan)
        with run_folder(out, run_id) as folder:
            write_record(folder, prepared.record)
            try:
                record = _tune_and_score(plan, prepared, folder, live, zero_shot)
            except BaseException as error:
                said = str(error) or type(error).__name__
                failed = prepared.record.model_copy(update={"status": "failed", "error": said})
                with contextlib.suppress(OSError):
                    write_record(folder, failed)
                raise
            write_record(folder, record)
    return Outcome(record, out / run_id, reused=False)


@dataclass(frozen=True)
class Inputs:
    """A plan's data, encoder and engine: all that a user may have got wrong has been read."""

    encoder: Any
    splits: dict[str, Any]
    engine: Any


def read_inputs(plan: Plan) -> Inputs:
    """Read every row of every split and check template, settings, device and delta; no weights."""
    import torch

    from cpm_tune.backbone.model import CPMAnt
    from cpm_tune.data.encode import Encoder
    from cpm_tune.data.files import read_split
    from cpm_tune.delta.insert import insert
    from cpm_tune.engine import make_engine

    spec = plan.spec
    with torch.device("meta"):  # names and shapes alone say whether the delta fits
        insert(CPMAnt(plan.folder.config), plan.delta, spec.backbone.sha256, seed=0)
    engine = make_engine(plan.execution, spec.precision)
    tokenizer = plan.folder.tokenizer()
    encoder = Encoder(plan.task, plan.template, spec.encoding, plan.folder.config, tokenizer)
    splits = {
        name: read_split(plan.task, file, spec.data.limit, spec.data.skip_bad_rows)
        for name, file in plan.splits.items()
    }
    return Inputs(encoder, splits, engine)


@dataclass(frozen=True)
class _Prepared:
    """Everything that can be wrong with the input has been read and found right."""

    started: float
    model: Any
    delta: Any
    encoder: Any
    engine: Any
    splits: dict[str, Any]
    record: RunRecord


def _prepare(plan: Plan) -> _Prepared:
    from cpm_tune.backbone.checkpoint import load_weights, random_backbone
    from cpm_tune.delta.insert import insert

    started = time.perf_counter()
    spec, inputs = plan.spec, read_inputs(plan)
    import torch

    dtype = torch.bfloat16 if spec.precision == "bf16" else torch.float32
    if spec.backbone.init == "random":
        model = random_backbone(plan.folder.config, spec.seed, dtype)
    else:
        model = load_weights(plan.folder, dtype)
    n_parameters = sum(p.numel() for p in model.parameters())
    delta = insert(model, plan.delta, spec.backbone.sha256, spec.seed)
    notes = [*plan.notes, *_unofficial(plan, inputs)]
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
    engine = inputs.engine
    prepared = engine.prepare(model)
    return _Prepared(started, prepared, delta, inputs.encoder, engine, inputs.splits, record)


def _unofficial(plan: Plan, inputs: Inputs) -> list[str]:
    """What is said of splits whose size is not the official one."""
    if plan.spec.data.limit or plan.spec.data.sample:
        return []
    official = dict(zip(SPLITS, plan.task.source.sizes, strict=True))
    return [
        f"{name} has {len(split):,} rows, officially {official[name]:,}"
        for name, split in inputs.splits.items()
        if official[name] is not None and len(split) != official[name]
    ]


def _tune_and_score(
    plan: Plan, prepared: _Prepared, folder: Path, live: bool, zero_shot: Outcome | None
) -> RunRecord:
    import torch

    spec, engine = plan.spec, prepared.engine
    deterministic = engine.device.type == "cpu"
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        training = _train(plan, prepared, folder, live) if spec.recipe else None
        scored = {split: _score(plan, prepared, split, folder) for split in ("dev", "test")}
    finally:
        torch.use_deterministic_algorithms(before)

    source = "train" if "train" in prepared.splits else "dev"
    guess = majority(prepared.splits[source].rows["target"])
    metric = get_metric(plan.task.metrics[0])
    targets = prepared.splits["test"].rows["target"]
    always = metric.score([guess] * len(targets), targets)
    controls = {
        "majority": ControlRecord(
            value=always.value,
            low=always.low,
            high=always.high,
            note=f"always {plan.task.answer.labels[guess]!r}, the most frequent in {source}",
        )
    }
    if zero_shot is not None:
        test = zero_shot.record.test
        controls["zero-shot"] = ControlRecord(
            value=test.value, low=test.low, high=test.high, run_id=zero_shot.record.run_id
        )
    weights = folder / "delta.safetensors"
    sha, dirty = git_state()
    data = {}
    for name, split in prepared.splits.items():
        cut = scored[name].n_truncated if name in scored else None
        data[name] = SplitRecord(
            path=str(split.file.path),
            sha256=split.file.sha256,
            n=len(split),
            n_skipped=split.n_skipped,
            n_truncated=cut,
        )
    return prepared.record.model_copy(
        update={
            "status": "finished",
            "data": data,
            "delta": DeltaRecord(
                name=plan.delta_name,
                n_trainable=prepared.delta.n_trainable,
                bytes=weights.stat().st_size if weights.exists() else 0,
                sha256=_sha256(weights) if weights.exists() else None,
            ),
            "scores": {name: part.scores for name, part in scored.items()},
            "controls": controls,
            "warnings": [w for part in scored.values() for w in part.warnings],
            "training": training,
            "predictions": {part.file.name: _sha256(part.file) for part in scored.values()},
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


def _train(plan: Plan, prepared: _Prepared, folder: Path, live: bool) -> TrainingRecord:
    from cpm_tune.data.batches import total_steps
    from cpm_tune.delta.insert import frozen_checksum
    from cpm_tune.predict import choose
    from cpm_tune.progress import Reporter
    from cpm_tune.train import train

    recipe, rows = plan.spec.recipe, prepared.splits["train"].rows
    assert recipe is not None
    metric = get_metric(plan.task.metrics[0])
    dev = prepared.splits["dev"].rows
    total = total_steps(len(rows), recipe)

    def evaluate() -> float:
        found = list(
            choose(
                prepared.model, dev, prepared.encoder, prepared.engine, plan.execution.micro_tokens
            )
        )
        return metric.score([p.prediction for p in found], [p.target for p in found]).value

    checksum = frozen_checksum(prepared.model, prepared.delta)
    with Reporter(folder, total, metric.name, live) as report:
        state = train(
            prepared.model,
            prepared.delta,
            rows,
            prepared.encoder,
            prepared.engine,
            recipe,
            plan.spec.seed,
            total=total,
            micro_tokens=plan.execution.micro_tokens,
            evaluate=evaluate,
            higher_is_better=metric.higher_is_better,
            report=report,
            improved=lambda: prepared.delta.save(folder),
        )
    if frozen_checksum(prepared.model, prepared.delta) != checksum:
        raise RuntimeError("frozen backbone parameters changed during training; this is a bug")
    return TrainingRecord(
        steps=state.step,
        best_step=state.best_step,
        stopped_early=state.stopped_early,
        curve=[CurvePoint(step=e.step, loss=e.loss, dev=e.dev) for e in state.curve],
        samples_per_second=round(state.n_samples / state.seconds, 3),
        seconds=round(state.seconds, 3),
    )


@dataclass(frozen=True)
class _Scored:
    scores: dict[str, ScoreRecord]
    file: Path
    n_truncated: int
    warnings: list[str]


def _score(plan: Plan, prepared: _Prepared, split: str, folder: Path) -> _Scored:
    from cpm_tune.predict import choose

    found = list(
        choose(
            prepared.model,
            prepared.splits[split].rows,
            prepared.encoder,
            prepared.engine,
            plan.execution.micro_tokens,
        )
    )
    lines = (json.dumps(p.to_json(plan.task.answer.labels), ensure_ascii=False) for p in found)
    file = folder / f"predictions.{split}.jsonl"
    write_atomically(file, "".join(line + "\n" for line in lines))
    scores = {}
    for name in plan.task.metrics:
        metric = get_metric(name)
        score = metric.score([p.prediction for p in found], [p.target for p in found])
        scores[name] = ScoreRecord(
            **vars(score), signature=metric.signature, higher_is_better=metric.higher_is_better
        )
    chosen = {p.prediction for p in found}
    same = len(chosen) == 1 and len({p.target for p in found}) > 1
    label = plan.task.answer.labels[chosen.pop()]
    warnings = [f"every prediction on {split} is {label!r}: nothing was learnt"] * same
    return _Scored(scores, file, sum(p.truncated for p in found), warnings)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
