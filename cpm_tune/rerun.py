"""Predicts with a finished run: other data, another split, the organisers' submission file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cpm_tune.backbone.checkpoint import BackboneFolder, open_folder
from cpm_tune.backbone.embedded import resolve
from cpm_tune.data.files import find_splits
from cpm_tune.delta.config import parse_config
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.folders import new_folder
from cpm_tune.inputs import Inputs, encoder_of, load_backbone
from cpm_tune.paths import file_sha256
from cpm_tune.plan import Plan, data_folder, find_template
from cpm_tune.record import FILE, RunRecord, ScoreRecord, read_record
from cpm_tune.registry import load_task
from cpm_tune.sizes import checked_size
from cpm_tune.task import SPLITS

if TYPE_CHECKING:
    from cpm_tune.backbone.model import CPMAnt
    from cpm_tune.delta.insert import Delta


def plan_of(
    run: Path, data: Path | None, split: str, backbone: str | None, include: Sequence[Path]
) -> tuple[Plan, RunRecord]:
    """The plan of a finished run on (one split of) other data.

    Raises UserError where task, template or backbone are no longer what the run had.
    """
    record = finished_record(run)
    spec = record.spec
    task = load_task(spec.task, include)
    template = find_template(task, spec.template)
    if (task.version, template.sha256) != (spec.task_version, spec.template_sha256):
        raise UserError(
            f"{run}: task {task.name} or its template '{template.name}' has changed since the run; "
            "use the version of cpm-tune it was made with."
        )
    folder = backbone_folder(record, backbone)
    splits = find_splits(task, data_folder(task, data), (split,))
    delta = parse_config(spec.delta, str(run / FILE))
    # One process, wherever the run was made.
    execution = record.execution.model_copy(update={"engine": "auto", "shard": False, "zero": 3})
    return (
        Plan(spec, execution, task, template, splits, folder, delta, record.delta.name, ()),
        record,
    )


def finished_record(run: Path) -> RunRecord:
    """The record of a run; raise UserError if there is none, or the run is not finished."""
    record = read_record(run / FILE)
    if record.status != "finished":
        raise UserError(f"{run}: the run is {record.status}, expected a finished one.")
    return record


def check_delta(run: Path, record: RunRecord) -> None:
    """Raise UserError if a run's delta is not the one its record names."""
    from cpm_tune.delta.insert import WEIGHTS

    if file_sha256(run / WEIGHTS) != record.delta.sha256:
        raise UserError(f"{run / WEIGHTS}: not the delta of {FILE}; the file was changed.")


def backbone_of_run(run: Path, backbone: str | None) -> tuple[CPMAnt, BackboneFolder, RunRecord]:
    """The backbone of a finished run, in fp32, whatever has become of its task."""
    import torch

    from cpm_tune.backbone.checkpoint import load_weights, random_backbone

    record = finished_record(run)
    folder = backbone_folder(record, backbone)
    if record.spec.backbone.init == "random":
        model = random_backbone(folder.config, record.spec.seed, torch.float32)
    else:
        model = load_weights(folder, torch.float32)
    return model.eval(), folder, record


def insert_saved(folder: Path, model: CPMAnt, backbone_sha256: str) -> Delta:
    """Insert a delta from its folder: a run's, one that was saved alone, or a LoRA of PEFT's.

    Raises UserError if it belongs to another backbone, random weights among them.
    """
    from cpm_tune.delta.foreign import PEFT_CONFIG, read_peft
    from cpm_tune.delta.insert import WEIGHTS, insert, load_delta

    if (folder / FILE).is_file():
        record = finished_record(folder)
        if record.spec.backbone.init == "random":
            raise UserError(f"{folder}: this delta was trained on random weights, the control.")
        if (folder / WEIGHTS).is_file():
            check_delta(folder, record)
    if not (folder / PEFT_CONFIG).is_file():
        return load_delta(folder, model, backbone_sha256)
    config, state = read_peft(folder, model)
    return insert(model, config, backbone_sha256, 0, values=state)


def backbone_folder(record: RunRecord, name: str | None) -> BackboneFolder:
    """Where a run's backbone is (now, if a name or path is given); raise UserError if it is not
    the one that the run had."""
    place = name or record.backbone.path
    if name is None and not Path(place).is_dir():
        place = record.backbone.name  # the embedded one, of another installation
    folder = open_folder(resolve(place))
    if folder.sha256() != record.spec.backbone.sha256:
        raise UserError(
            f"{folder.path}: not the backbone of this run (sha256 "
            f"{record.spec.backbone.sha256[:12]}…); give it with --backbone."
        )
    return folder


@dataclass(frozen=True)
class Predicted:
    """A split's scores by metric (none without answers), what was written, what is to be told."""

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
    limit: int | None = None,
    submission: bool = False,
    include: Sequence[Path] = (),
    memory_limit: str | None = None,
) -> Predicted:
    """Predict one split with a finished run; write predictions (and the submission) to `out`.

    `delta_from`: a folder with another delta for the same backbone, ours or a LoRA of PEFT's,
    instead of the run's. `memory_limit` (such as 4GB): the most of the backbone that is in memory
    at a time. `out` appears whole or not at all.
    """
    from cpm_tune.data.store import read_split
    from cpm_tune.delta.insert import load_delta
    from cpm_tune.engine import make_engine
    from cpm_tune.score import score_split, write_submission

    if split not in SPLITS:
        raise UserError(f"there is no split '{split}'.{did_you_mean(split, SPLITS)}")
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}, expected a whole number from 1.")
    plan, record = plan_of(run, data, split, backbone, include)
    limit_to = None if memory_limit is None else checked_size(memory_limit, "--memory-limit")
    plan = replace(plan, execution=plan.execution.model_copy(update={"memory_limit": limit_to}))
    task, spec = plan.task, plan.spec
    if submission and task.submission is None:
        raise UserError(f"task {task.name} has no submission format.")
    place = out or Path(f"{run.name}.{split}.predictions")
    notes: list[str] = []
    with new_folder(place) as part:
        engine = make_engine(plan.execution, spec.precision)
        rows = read_split(task, plan.splits[split], limit, spec.data.skip_bad_rows)
        model = load_backbone(plan, engine)
        if delta_from is not None:
            plan = replace(plan, delta=insert_saved(delta_from, model, spec.backbone.sha256).config)
        elif spec.recipe is not None:
            check_delta(run, record)
            load_delta(run, model, spec.backbone.sha256)
        encoder = encoder_of(plan, plan.folder.tokenizer())
        scored = score_split(
            plan, engine.prepare(model), Inputs(encoder, {split: rows}, engine), split, part
        )
        if submission:
            assert task.submission is not None
            file = part / task.submission.file
            notes += write_submission(task, rows, scored.predictions, file)
    said = tuple(dict.fromkeys((*scored.warnings, *notes)))
    return Predicted(split, scored.scores, tuple(sorted(place.iterdir())), said)
