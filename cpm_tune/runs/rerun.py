"""Predicts with a finished run: on other data, on another split, with a submission file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from cpm_tune.backbone.base import Backbone
from cpm_tune.backbone.bundled import FOLDERS, resolve
from cpm_tune.backbone.families import open_folder
from cpm_tune.backbone.protocol import BackboneFolder
from cpm_tune.common.folders import CHAT, RECORD, new_folder
from cpm_tune.common.reading import MOST_TEMPLATE, read_text
from cpm_tune.common.sizes import checked_size
from cpm_tune.data.splits import data_folder, find_splits
from cpm_tune.data.store import read_split
from cpm_tune.delta.config import DeltaConfig, parse_config
from cpm_tune.delta.insert import Delta, check_fits, insert
from cpm_tune.delta.saved import check_delta, read_saved
from cpm_tune.delta.scaling import check_scaled, scaled
from cpm_tune.delta.stored import read_delta
from cpm_tune.engine.engine import make_engine
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.planning.inputs import add_shots, load_backbone, make_encoder
from cpm_tune.planning.placement import check_placement
from cpm_tune.planning.plan import Plan, chat_sha256
from cpm_tune.planning.recorded import recorded_folder
from cpm_tune.schema.record import RunRecord, ScoreRecord, finished_record
from cpm_tune.systems.submission import write_submission
from cpm_tune.task import SPLITS
from cpm_tune.task.registry import load_task
from cpm_tune.tuning.predict import make_predictor
from cpm_tune.tuning.score import score_split


def plan_of(
    run: Path,
    data: Path | None,
    needed: tuple[str, ...],
    backbone: str | None,
    include: Sequence[Path],
) -> tuple[Plan, RunRecord]:
    """The plan of a finished run on these splits, of other data if given, else of the run's own.

    Raises UserError if task, template or backbone are not those of the run any more,
    or if its data are not where they were.
    """
    record = finished_record(run)
    spec = record.spec
    task = load_task(spec.task, include)
    template = task.template_of(spec.template, spec.template_sha256)
    if template is None or task.version != spec.task_version:
        raise UserError(
            f"{run}: task {task.name} or its template '{spec.template}' has changed since the run; "
            "use the version of cpm-tune that made the run."
        )
    folder = backbone_folder(record, backbone)
    chat = chat_of_run(run, spec.chat_template)
    if spec.shots and "train" not in needed:
        needed = (*needed, "train")
    known = recorded_folder(task, record, needed) if data is None else data_folder(task, data)
    splits = find_splits(task, known, needed, fold=spec.data.fold)
    if spec.shots and splits["train"].sha256 != spec.data.train:
        raise UserError(
            f"{splits['train'].path}: not the train split of the run, from which its shots are; "
            "put the run's train file next to the split to predict."
        )
    note = splits[needed[0]].note
    notes = (note,) if note else ()
    delta = parse_config(spec.delta, str(run / RECORD))
    # One process, however many made the run.
    execution = record.execution.model_copy(update={"engine": "auto", "shard": False, "zero": 3})
    return (
        Plan(
            *(spec, execution, task, template, splits, folder, delta, record.delta.name, notes),
            chat,
        ),
        record,
    )


def chat_of_run(run: Path, sha256: str | None) -> str | None:
    """The text of the chat template that a run was made with, None if with none; raise UserError if
    it is not there any more."""
    if sha256 is None:
        return None
    text = read_text(run / CHAT, "chat template", MOST_TEMPLATE)
    if chat_sha256(text) != sha256:
        raise UserError(f"{run / CHAT}: not the chat template of the run: it has been changed.")
    return text


def backbone_of_run(run: Path, backbone: str | None) -> tuple[Backbone, BackboneFolder, RunRecord]:
    """The backbone of a finished run, in fp32; its task is not needed."""
    record = finished_record(run)
    folder = backbone_folder(record, backbone)
    model = folder.open(torch.float32, random_seed=record.spec.random_seed)
    return model.eval(), folder, record


def backbone_folder(record: RunRecord, name: str | None) -> BackboneFolder:
    """The folder of a run's backbone: `name` if it has moved. Raises UserError if it is not the one
    that the run used."""
    folder = open_folder(_recorded(record) if name is None else resolve(name))
    owner, here = record.spec.backbone.sha256, folder.sha256()
    if here == owner:
        return folder
    which = f"backbone {record.backbone.name} (sha256 {owner[:12]}…)"
    if name is None:
        raise UserError(
            f"{folder.path}: no longer the run's {which}; its files have changed (now "
            f"{here[:12]}…). Give the folder of that backbone with --backbone."
        )
    did = "its delta was tuned on" if record.spec.recipe is not None else "the run used"
    raise UserError(
        f"--backbone {name} (sha256 {here[:12]}…) is not the run's: {did} {which}; omit "
        f"--backbone to use {record.backbone.path}, or give the folder where it is now."
    )


def _recorded(record: RunRecord) -> Path:
    """Where a record says that the backbone is. Records come from anybody: nothing is downloaded,
    UserError if it is not there."""
    place, name = Path(record.backbone.path), record.backbone.name
    if place.is_dir():
        return place
    if name in FOLDERS:  # of another installation
        return FOLDERS[name]
    raise UserError(
        f"{place}: there is no such folder; give the folder of the run's backbone '{name}' with "
        "--backbone."
    )


def _placed(
    plan: Plan, memory_limit: str | None, quantize: str | None, delta: DeltaConfig | None
) -> Plan:
    """The plan with this memory limit and these 8-bit weights; raise UserError if they conflict.

    A run that was tuned on 8-bit weights keeps them. Either replaces the run's `offload`, which
    does not affect the result.
    """
    limit = None if memory_limit is None else checked_size(memory_limit, "--memory-limit")
    changes = {"memory_limit": limit} | ({"offload": False} if limit or quantize else {})
    execution, spec = plan.execution.model_copy(update=changes), plan.spec
    quantize = quantize or spec.backbone.quantize
    random = spec.backbone.init == "random"
    # Of the run's sharding only `offload` is left, which bmtrain allows with full fine-tuning.
    requested = execution.model_copy(update={"offload": False})
    check_placement(requested, delta, spec.precision, quantize, random=random)
    backbone = spec.backbone.model_copy(update={"quantize": quantize})
    return replace(plan, execution=execution, spec=spec.model_copy(update={"backbone": backbone}))


def with_delta(
    run: Path,
    plan: Plan,
    record: RunRecord,
    model: Backbone,
    delta_from: Path | None = None,
    factor: float = 1.0,
) -> tuple[Plan, Delta | None]:
    """Insert a run's delta, or the one of `delta_from`, times `factor`; return the delta, and the
    plan with its config."""
    sha256 = plan.spec.backbone.sha256
    if delta_from is not None:
        config, state = read_saved(delta_from, model, sha256)
    elif plan.spec.recipe is None:
        if factor != 1:
            check_scaled("none")
        return plan, None
    else:
        check_delta(run, record)
        config, state = read_delta(run, sha256)
        check_fits(model, config, state)
    if factor != 1:
        state = scaled(config, state, factor, model)
    delta = insert(model, config, sha256, 0, values=state)
    return (plan if delta_from is None else replace(plan, delta=delta.config)), delta


@dataclass(frozen=True)
class Predicted:
    """A split's scores by metric (none without gold answers), the files written, warnings."""

    split: str
    scores: dict[str, ScoreRecord]
    files: tuple[Path, ...]
    warnings: tuple[str, ...]


def predict_run(
    run: Path,
    *,
    data: Path | None = None,
    split: str = "test",
    out: Path | None = None,
    backbone: str | None = None,
    delta_from: Path | None = None,
    delta_scale: float = 1.0,
    limit: int | None = None,
    submission: bool = False,
    include: Sequence[Path] = (),
    memory_limit: str | None = None,
    quantize: str | None = None,
) -> Predicted:
    """Predict one split with a finished run; write predictions (and the submission) to `out`.

    `data`: a folder of other data; by default the split is the run's own, where the run had it.
    `delta_from`: a folder with another delta for the same backbone, ours or a LoRA of PEFT's,
    instead of the run's. `delta_scale` multiplies the delta, if it is a LoRA or full fine-tuning: 0
    is the bare backbone. `memory_limit` (such as 4GB): the most of the backbone in memory at a
    time; `quantize` "int8": its linear weights in 8 bits, as a run that was tuned so has them
    anyway. `out` appears complete or not at all.
    """
    if split not in SPLITS:
        raise UserError(f"there is no split '{split}'.{did_you_mean(split, SPLITS)}")
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}, expected a whole number from 1.")
    plan, record = plan_of(run, data, (split,), backbone, include)
    plan = _placed(plan, memory_limit, quantize, plan.delta if delta_from is None else None)
    task, spec = plan.task, plan.spec
    if submission and task.submission is None:
        raise UserError(f"task {task.name} has no submission format.")
    folder = out or Path(f"{run.name}.{split}.predictions")
    with new_folder(folder) as part:
        engine = make_engine(plan.execution, spec.precision)
        rows = read_split(task, plan.splits[split], limit, spec.data.skip_bad_rows)
        model = load_backbone(plan, engine)
        plan, _ = with_delta(run, plan, record, model, delta_from, delta_scale)
        encoder = make_encoder(plan, plan.folder.tokenizer())
        if spec.shots:
            train = plan.splits["train"], spec.data.limit, spec.data.skip_bad_rows
            add_shots(plan, encoder, {"train": read_split(task, *train)})
        predictor = make_predictor(plan, engine.prepare(model), encoder, engine)
        scored = score_split(predictor, rows, part)
        warnings = [*plan.notes, *rows.warnings, *scored.warnings]
        if submission and task.submission is not None:
            file = part / task.submission.file
            warnings += write_submission(task, rows, scored.answers, file)
    files = tuple(sorted(folder.iterdir()))
    return Predicted(split, scored.scores, files, tuple(dict.fromkeys(warnings)))
