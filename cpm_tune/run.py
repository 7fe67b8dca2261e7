"""Carries out a plan: reads, trains, scores, and leaves one record.

A run is made in `RUN_ID.partial` and renamed when it is whole, so that a finished folder is
complete by construction and a finished run is never harmed by a later one.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpm_tune.environment import git_state, package_versions, peak_memory_bytes
from cpm_tune.errors import UserError
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


@dataclass(frozen=True)
class Outcome:
    """A run's record, its folder, and whether it was there already."""

    record: RunRecord
    folder: Path
    reused: bool


@contextlib.contextmanager
def run_folder(out: Path, run_id: str) -> Iterator[Path]:
    """Lock and yield an empty `RUN_ID.partial`; on success it becomes `RUN_ID`.

    On an exception the partial folder stays, for its record and log. Raises UserError when `out`
    cannot be written or another process holds the run.
    """
    from filelock import FileLock, Timeout

    final, partial = out / run_id, out / f"{run_id}.partial"
    try:
        (out / ".locks").mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / ".locks" / run_id)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"{final}: another process is at work on this run; wait for it.") from error
    except OSError as error:
        raise UserError(
            f"--out {out}: cannot be written ({error.strerror}); choose another."
        ) from error
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        old = out / f"{run_id}.old"
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(final, old)
        os.replace(partial, final)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        lock.release()


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
) -> Outcome:
    """Carry out a plan, unless a finished run with the same spec is in `out`.

    `zero_shot` is the outcome of the same plan without delta, recorded as a control. Raises
    UserError for what the user can mend; any failure after training began is recorded.
    """
    done = finished(out, plan.spec.run_id)
    if done is not None and not overwrite:
        return Outcome(done, out / plan.spec.run_id, reused=True)
    prepared = _prepare(plan)
    with run_folder(out, plan.spec.run_id) as folder:
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
    return Outcome(record, out / plan.spec.run_id, reused=False)


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
    from cpm_tune.data.encode import Encoder
    from cpm_tune.data.files import read_split
    from cpm_tune.delta.insert import insert
    from cpm_tune.engine import make_engine

    started = time.perf_counter()
    spec = plan.spec
    tokenizer = plan.folder.tokenizer()
    encoder = Encoder(plan.task, plan.template, spec.encoding, plan.folder.config, tokenizer)
    splits = {
        name: read_split(plan.task, file, spec.data.limit, spec.data.skip_bad_rows)
        for name, file in plan.splits.items()
    }
    engine = make_engine(plan.execution, spec.precision)
    import torch

    dtype = torch.bfloat16 if spec.precision == "bf16" else torch.float32
    if spec.backbone.init == "random":
        model = random_backbone(plan.folder.config, spec.seed, dtype)
    else:
        model = load_weights(plan.folder, dtype)
    n_parameters = sum(p.numel() for p in model.parameters())
    delta = insert(model, plan.delta, spec.backbone.sha256, spec.seed)
    record = RunRecord(
        status="running",
        run_id=spec.run_id,
        spec_sha256=spec.sha256,
        spec=spec,
        execution=plan.execution,
        ranks_by=plan.task.metrics[0],
        comparable=not plan.notes,
        note="; ".join(plan.notes),
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
    return _Prepared(started, engine.prepare(model), delta, encoder, engine, splits, record)


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
    return _Scored(scores, file, sum(p.truncated for p in found))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
