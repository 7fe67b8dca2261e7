"""From what the user said to a checked plan of one run. Collects all mistakes; loads no weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cpm_tune.backbone.bundled import NAME as EMBEDDED
from cpm_tune.backbone.bundled import resolve
from cpm_tune.backbone.folder import BackboneFolder, open_folder
from cpm_tune.common.faults import faults
from cpm_tune.common.reading import parse_yaml, read_mapping
from cpm_tune.common.sizes import counted
from cpm_tune.data.splits import SplitFile, find_splits, is_sample, missing_parts, sample_folder
from cpm_tune.delta.config import DeltaConfig, NoneConfig, lr_factor, parse_config
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.planning.placement import placement
from cpm_tune.schema.spec import (
    BackboneSpec,
    DataSpec,
    Decoding,
    Encoding,
    Execution,
    Recipe,
    RunSpec,
)
from cpm_tune.task import SPLITS, Generate, Task, Template
from cpm_tune.task.registry import load_preset, load_task
from cpm_tune.tracking.sinks import check as check_services


@dataclass(frozen=True)
class Request:
    """What the user asked for; the fields are the options of `tune`."""

    task: str
    delta: str = "lora"
    template: str | None = None
    data: Path | None = None
    backbone: str = EMBEDDED
    seed: int = 1
    precision: str = "fp32"
    quantize: str | None = None
    limit: int | None = None
    skip_bad_rows: bool = False
    random_backbone: bool = False
    settings: Mapping[str, Any] | None = None
    include: Sequence[Path] = ()


@dataclass(frozen=True)
class Plan:
    """One run, fully decided. `notes` say what makes its scores not comparable."""

    spec: RunSpec
    execution: Execution
    task: Task
    template: Template
    splits: Mapping[str, SplitFile]
    folder: BackboneFolder
    delta: DeltaConfig
    delta_name: str
    notes: tuple[str, ...]

    def zero_shot(self) -> Plan:
        """The same without delta and training."""
        none = NoneConfig()
        spec = self.spec.model_copy(
            update={
                "delta": none.model_dump(mode="json"),
                "recipe": None,
                "data": self.spec.data.model_copy(update={"train": None}),
                "seed": 0 if self.spec.backbone.init == "checkpoint" else self.spec.seed,
            }
        )
        return replace(self, spec=spec, delta=none, delta_name="none")

    def on_random_backbone(self) -> Plan:
        """The same on random weights of the same shape."""
        backbone = self.spec.backbone.model_copy(update={"init": "random"})
        spec = self.spec.model_copy(update={"backbone": backbone})
        notes = (*self.notes, _random_weights(self.folder))
        return replace(self, spec=spec, notes=tuple(dict.fromkeys(notes)))


def parse_settings(items: Sequence[str]) -> dict[str, Any]:
    """Parse `key=value` strings; values are read as YAML scalars, so 1e-3 and true mean that."""
    settings: dict[str, Any] = {}
    for item in items:
        key, sign, text = item.partition("=")
        if not sign or not key:
            raise UserError(f"--set {item}: expected key=value, such as train.lr=1e-3.")
        try:
            settings[key.strip()] = parse_yaml(text)
        except ValueError as error:
            raise UserError(f"--set {item}: the value is not valid YAML ({error}).") from error
    return settings


class ConfigFile(BaseModel):
    """What a --config file may say: the options of `tune` by their long names, and `set`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    task: str | None = None
    delta: str | None = None
    template: str | None = None
    data: str | None = None
    backbone: str | None = None
    out: str | None = None
    seed: int | None = None
    precision: str | None = None
    quantize: str | None = None
    limit: int | None = None
    skip_bad_rows: bool | None = None
    set: dict[str, Any] | None = None


def read_config(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file of options; return those it gives. `set` comes out flat.

    Raises UserError for what is wrong with it.
    """
    values = read_mapping(path, "--config", "task: lcqmc")
    values = {str(key).replace("-", "_"): value for key, value in values.items()}
    unknown = [key for key in values if key not in ConfigFile.model_fields]
    if unknown:
        known = did_you_mean(unknown[0], ConfigFile.model_fields)
        raise UserError(f"--config {path}: no option '{unknown[0]}'.{known}")
    try:
        config = ConfigFile.model_validate(values)
    except ValidationError as error:
        raise UserError(f"--config {path}: {faults(error)[0]}.") from error
    found = config.model_dump(exclude_none=True)
    found["set"] = _flat(found.get("set", {}))
    return found


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """{"train": {"lr": 1}} and {"train.lr": 1} both become {"train.lr": 1}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        nested = value if isinstance(value, dict) else None
        flat.update(
            {key: value} if nested is None else {f"{key}.{k}": v for k, v in nested.items()}
        )
    return flat


def make_plan(request: Request) -> Plan:
    """Check a request and return its plan. Every mistake found is in the one UserError raised."""
    problems: list[str] = []

    def attempt(action: Any, *args: Any) -> Any:
        try:
            return action(*args)
        except UserError as error:
            problems.append(str(error))
            return None

    task: Task | None = attempt(load_task, request.task, request.include)
    settings = dict(request.settings or {})
    folder = attempt(lambda: open_folder(resolve(request.backbone)))
    width = folder.config.dim_model if folder else None
    delta, factor = attempt(_delta, request.delta, settings, width) or (None, 1.0)
    trains = delta is None or delta.delta_type != "none"
    template = splits = encoding = recipe = decoding = None
    if task is not None:
        template = attempt(find_template, task, request.template)
        optional = () if trains else ("train",)  # without training it only names the majority
        splits = attempt(find_splits, task, data_folder(task, request.data), SPLITS, optional)
        defaults = {**task.recipe, **(task.sample_recipe if request.data is None else {})}
        defaults["lr"] = factor * defaults.get("lr", Recipe.model_fields["lr"].default)
        encoding = attempt(_settings, Encoding, "encode", settings, defaults)
        recipe = attempt(_settings, Recipe, "train", settings, defaults) if trains else None
        if isinstance(task.answer, Generate):
            decoding = attempt(_decoding, task.answer, settings, defaults)
    execution = attempt(_settings, Execution, "run", settings, {})
    if execution is not None:
        attempt(check_services, execution.track)
        problems += placement(execution, delta, request.precision, request.quantize)
        if execution.memory_limit and (trains or request.random_backbone):
            problems.append(
                "run.memory_limit is for what does not train (--delta none, predict, generate), "
                "with the backbone's own weights; leave it out here."
            )
    if task is not None and not isinstance(task.answer, Generate):
        problems += [
            f"{key} has no effect: task {task.name} writes no text."
            for key in settings
            if key.startswith("decode.")
        ]
    for key in settings:
        if key.partition(".")[0] not in (*_PARTS, "delta"):
            full = [
                f"{part}.{name}" for part, model in _PARTS.items() for name in model.model_fields
            ]
            problems.append(f"there is no setting '{key}'.{did_you_mean(key, full)}")
        elif key.startswith("train.") and not trains:
            problems.append(
                f"{key} has no effect with --delta {request.delta}, which trains nothing."
            )
    if problems:
        raise UserError("\n".join(problems))
    assert task is not None
    assert template is not None
    assert splits is not None
    assert folder is not None
    assert encoding is not None
    assert delta is not None

    sample = is_sample(task, splits)
    notes = [f"sample data written for this project: not comparable with real {task.name}"] * sample
    notes += missing_parts(task, splits)
    if len({file.sha256 for file in splits.values()}) < len(splits):
        notes.append("two splits are the same file")
    if request.limit:
        notes.append(f"limited to {counted(request.limit, 'row')} per split")
    if not folder.trained or request.random_backbone:
        notes.append(_random_weights(folder))
    try:
        spec = RunSpec(
            task=task.name,
            task_version=task.version,
            template=template.name,
            template_version=template.version,
            template_sha256=template.sha256,
            metrics=task.metrics,
            data=DataSpec(
                train=splits["train"].sha256 if trains else None,
                dev=splits["dev"].sha256,
                test=splits["test"].sha256,
                limit=request.limit,
                skip_bad_rows=request.skip_bad_rows,
                sample=sample,
            ),
            backbone=BackboneSpec(
                sha256=folder.sha256(),
                init="random" if request.random_backbone else "checkpoint",
                quantize=request.quantize,
            ),
            delta=delta.model_dump(mode="json"),
            encoding=encoding,
            decoding=decoding,
            recipe=recipe,
            seed=request.seed if trains or request.random_backbone else 0,
            precision=request.precision,
        )
    except ValidationError as error:
        raise UserError(f"{faults(error)[0]}.") from error
    return Plan(
        spec,
        execution,
        task,
        template,
        splits,
        folder,
        delta,
        Path(request.delta).stem,
        tuple(notes),
    )


def _random_weights(folder: BackboneFolder) -> str:
    return f"the backbone {folder.name} has random weights"


def data_folder(task: Task, data: Path | None) -> Path:
    """Where a task's files are: in DIR/NAME if there is such a folder, else in DIR (--data DIR);
    without --data the sample data."""
    if data is None:
        return sample_folder(task)
    return data / task.name if (data / task.name).is_dir() else data


def find_template(task: Task, name: str | None) -> Template:
    """Return a task's template by name (None: the default), or raise UserError."""
    template = task.template(name)
    if template is None:
        known = [t.name for t in task.templates]
        raise UserError(
            f"task {task.name} has no template '{name}'.{did_you_mean(str(name), known)}"
        )
    return template


def encoding_of(task: Task, settings: Mapping[str, Any]) -> Encoding:
    """The task's encoding defaults with the user's `encode.*` settings."""
    encoding: Encoding = _settings(Encoding, "encode", settings, task.recipe)
    return encoding


def _decoding(
    answer: Generate, settings: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Decoding:
    own = {name: getattr(answer, name) for name in ("max_new_tokens", "beams", "n_best")}
    made: Decoding = _settings(Decoding, "decode", settings, {**own, **defaults})
    return made


def _delta(name: str, settings: Mapping[str, Any], width: int | None) -> tuple[DeltaConfig, float]:
    """A delta's config, and what it multiplies the task's learning rate with."""
    config = load_preset(name)
    for key, value in settings.items():
        part, _, setting = key.partition(".")
        if part == "delta":
            config[setting] = value
    where = f"delta {name}"
    return parse_config(config, where), lr_factor(config, where, width)


def _settings(
    model: Any, part: str, settings: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Any:
    """Build a settings model from defaults that belong to it and the user's `part.*` settings."""
    values = {key: value for key, value in defaults.items() if key in model.model_fields}
    for key, value in settings.items():
        owner, _, name = key.partition(".")
        if owner == part:
            if name not in model.model_fields:
                names = [f"{part}.{field}" for field in model.model_fields]
                names += [
                    f"{p}.{f}" for p, m in _PARTS.items() for f in m.model_fields if f == name
                ]
                raise UserError(f"there is no setting '{key}'.{did_you_mean(key, names)}")
            if isinstance(value, bool) and model.model_fields[name].annotation is not bool:
                raise UserError(f"{key} is {value}, expected a number or a name.")
            values[name] = value
    try:
        return model(**values)
    except ValidationError as error:
        raise UserError("\n".join(f"{fault}." for fault in faults(error, f"{part}."))) from error


_PARTS: Mapping[str, Any] = {
    "train": Recipe,
    "encode": Encoding,
    "decode": Decoding,
    "run": Execution,
}
