"""Runs of their own with the delta of a finished run scaled back towards zero."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from cpm_tune.common.energy import RunMeter
from cpm_tune.common.environment import reset_peak_memory
from cpm_tune.common.folders import CHAT, DELTA, disk_trouble, partial_folder, run_folder, run_lock
from cpm_tune.common.paths import file_sha256
from cpm_tune.common.progress import working
from cpm_tune.common.writing import write_atomically
from cpm_tune.data.store import read_split
from cpm_tune.delta.scaling import check_scaled
from cpm_tune.engine.engine import make_engine
from cpm_tune.errors import UserError
from cpm_tune.planning.inputs import add_shots, load_backbone, make_encoder
from cpm_tune.planning.plan import Plan
from cpm_tune.runs.execute import Outcome
from cpm_tune.runs.finished import finished
from cpm_tune.runs.parts import environment_record, split_record
from cpm_tune.runs.rerun import plan_of, with_delta
from cpm_tune.schema.record import RunRecord, finished_record, write_record
from cpm_tune.tuning.predict import make_predictor
from cpm_tune.tuning.score import score_split
from cpm_tune.version import NUMBERS


def scaled_run(
    run: Path,
    factor: float,
    *,
    data: Path | None = None,
    out: Path | None = None,
    backbone: str | None = None,
    include: Sequence[Path] = (),
    overwrite: bool = False,
) -> Outcome:
    """Score dev and test with `factor` times the delta of a finished run; leave a run next to it,
    or in `out`, with that delta, unless it is there already.

    Raises UserError for a delta that cannot be scaled, and if data or backbone are not the run's.
    """
    record = finished_record(run)
    check_scaled(record.spec.delta["delta_type"])
    if record.spec.delta_scale != 1 or factor == 1:
        which = "the run is scaled already; give the one it was made from"
        raise UserError(f"{run}: {which if factor != 1 else '1 is the run itself; omit it'}.")
    spec = record.spec.model_copy(update={"delta_scale": factor})
    out = run.resolve().parent if out is None else out
    made = record.model_copy(
        update={"run_id": spec.run_id, "spec": spec, "spec_sha256": spec.sha256}
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(disk_trouble(partial_folder(out, spec.run_id)))
        stack.enter_context(run_lock(out, spec.run_id, True))
        before = finished(out, spec.run_id)
        if before is not None and not overwrite:
            return Outcome(before, out / spec.run_id, reused=True)
        plan = _plan(run, record, data, backbone, include)
        stack.enter_context(run_folder(out, spec.run_id, False))
        made = _scored(run, record, made, plan, factor, partial_folder(out, spec.run_id))
    return Outcome(made, out / spec.run_id, reused=False)


def _plan(
    run: Path, record: RunRecord, data: Path | None, backbone: str | None, include: Sequence[Path]
) -> Plan:
    """The run's plan on the splits that it was scored on."""
    plan, _ = plan_of(run, data, ("test", "dev"), backbone, include)
    splits = plan.splits
    for name in ("dev", "test"):
        if splits[name].sha256 != getattr(record.spec.data, name):
            raise UserError(
                f"{splits[name].path}: not the {name} split of the run; give the run's --data."
            )
    return plan


def _scored(
    run: Path, before: RunRecord, made: RunRecord, plan: Plan, factor: float, folder: Path
) -> RunRecord:
    """The record of a scaled run, whose files are in `folder`."""
    spec = plan.spec
    engine = make_engine(plan.execution, spec.precision)
    meter = RunMeter(engine.device)
    reset_peak_memory(engine.device)
    splits = {
        name: read_split(plan.task, file, spec.data.limit, spec.data.skip_bad_rows)
        for name, file in plan.splits.items()
    }
    with working("loading the backbone"):
        model = load_backbone(plan, engine)
    _, delta = with_delta(run, plan, before, model, factor=factor)
    assert delta is not None
    delta.save(folder)
    encoder = make_encoder(plan, plan.folder.tokenizer())
    add_shots(plan, encoder, splits)
    predictor = make_predictor(plan, engine.prepare(model), encoder, engine)
    scored = {name: score_split(predictor, splits[name], folder) for name in ("dev", "test")}
    files = [path for part in scored.values() for path in part.files]
    sha256 = file_sha256(folder / DELTA)
    made = made.model_copy(
        update={
            "numbers": NUMBERS,
            "data": {
                **before.data,
                **{
                    name: split_record(plan.task, splits[name], len(splits[name]), scored[name])
                    for name in scored
                },
            },
            "delta": before.delta.model_copy(
                update={"sha256": sha256, "bytes": (folder / DELTA).stat().st_size}
            ),
            "scores": {name: part.scores for name, part in scored.items() if part.scores},
            "overlap": {},
            "forgetting": {},
            "warnings": [w for part in scored.values() for w in part.warnings],
            "training": None,
            "environment": environment_record(engine, meter, False),
            "predictions": {path.name: file_sha256(path) for path in files},
            "earlier_scores": [],
        }
    )
    if plan.chat is not None:
        write_atomically(folder / CHAT, plan.chat)
    write_record(folder, made)
    return made
