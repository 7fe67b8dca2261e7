"""A run's record as the options of a command: `--config run.json` runs it again."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from cpm_tune.backbone.bundled import NAME
from cpm_tune.common.folders import CHAT
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.texts import recorded_folder
from cpm_tune.schema.record import RunRecord, read_record
from cpm_tune.schema.spec import Execution, RunSpec, flattened
from cpm_tune.task.registry import load_preset, load_task, preset_files


def options_of(path: Path, include: tuple[Path, ...], given: Collection[str]) -> dict[str, Any]:
    """The options and settings of the run that a record describes, as a --config file has them;
    `given` are those of the command line.

    Raises UserError if data or backbone are not where the run found them, and not given.
    """
    record = read_record(path)
    spec = record.spec
    if spec.backbone.init == "random":
        raise UserError(
            f"{path}: the record of a random-backbone control; give that of its run, and --control "
            "random-backbone."
        )
    options: dict[str, Any] = {
        "task": spec.task,
        "delta": _preset(record),
        "seed": spec.seed,
        "template": spec.template,
        "scoring": spec.scoring,
        "precision": spec.precision,
        "quantize": spec.backbone.quantize,
        "limit": spec.data.limit,
        "skip_bad_rows": spec.data.skip_bad_rows,
        "fold": spec.data.fold,
        "shots": spec.shots,
        "shot_choice": spec.shot_choice,
        "chat_template": str(path.parent / CHAT) if spec.chat_template else None,
    }
    if "backbone" not in given:
        options["backbone"] = _backbone(record, path)
    if not (spec.data.sample or "data" in given):
        options["data"] = str(recorded_folder(load_task(spec.task, include), record))
    parts = {"train": spec.recipe, "encode": spec.encoding, "decode": spec.decoding}
    settings: dict[str, Any] = {
        f"{part}.{name}": value
        for part, model in parts.items()
        if model is not None
        for name, value in model.model_dump(mode="json").items()
        if value is not None
    }
    settings |= {f"delta.{k}": v for k, v in spec.delta.items() if k != "delta_type"}
    usual = Execution().model_dump(mode="json")
    execution = record.execution.model_dump(mode="json")
    settings |= {f"run.{k}": v for k, v in execution.items() if v != usual[k]}
    chosen = {name: value for name, value in options.items() if value not in (None, False, 0)}
    return {**chosen, "seed": spec.seed, "set": settings}


def _backbone(record: RunRecord, path: Path) -> str:
    """Where the backbone is. Records come from anybody: nothing is downloaded."""
    if Path(record.backbone.path).is_dir():
        return record.backbone.path
    if record.backbone.name == NAME:  # of another installation
        return NAME
    raise UserError(
        f"{path}: the backbone {record.backbone.name} is not at {record.backbone.path}; give its "
        "folder with --backbone."
    )


def _preset(record: RunRecord) -> str:
    """A preset of the run's delta method: the one of its name if there is one."""
    kind = record.spec.delta["delta_type"]
    alike = [n for n in preset_files() if load_preset(n).get("delta_type") == kind]
    if not alike:
        raise UserError(f"no preset has the delta_type '{kind}' of the record.")
    return record.delta.name if record.delta.name in alike else alike[0]


def differences(before: RunSpec, now: RunSpec) -> Iterator[str]:
    """What differs between a run's spec and that of the run made from its record."""
    old, new = flattened(before), flattened(now)
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key):
            yield f"{key} was {old.get(key)}, is now {new.get(key)}"


def compared(path: Path, spec: RunSpec) -> list[str]:
    """Sentences on whether a spec is that of a record."""
    before = read_record(path).spec
    if before.sha256 == spec.sha256:
        return [f"{path}: the same run, {spec.run_id}"]
    return [f"{path}: another run: {each}" for each in differences(before, spec)]
