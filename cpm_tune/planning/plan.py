"""From a request to a checked plan of one run. Collects all mistakes; loads no weights."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ValidationError

from cpm_tune.backbone.bundled import resolve
from cpm_tune.backbone.families import open_folder
from cpm_tune.backbone.protocol import BackboneFolder, check_length, fitting
from cpm_tune.common.faults import faults
from cpm_tune.common.option import Option
from cpm_tune.common.reading import MOST_TEMPLATE, read_text
from cpm_tune.common.sizes import counted
from cpm_tune.data.splits import (
    SplitFile,
    data_folder,
    find_splits,
    folds_sha256,
    is_sample,
    missing_parts,
)
from cpm_tune.delta.config import (
    DeltaConfig,
    NoneConfig,
    check_masks,
    lr_factor,
    parse_config,
    with_names,
)
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.planning.placement import placement
from cpm_tune.planning.settings import KEYS, PARTS, build
from cpm_tune.schema.options import RunOptions
from cpm_tune.schema.record import SearchRecord
from cpm_tune.schema.spec import (
    BackboneSpec,
    DataSpec,
    Decoding,
    Encoding,
    Execution,
    Recipe,
    RunSpec,
)
from cpm_tune.task import SPLITS, Generate, NamedRecipe, Task, Template
from cpm_tune.task.registry import load_preset, load_task
from cpm_tune.task.scoring import ScoringName, scoring_of, unfit
from cpm_tune.tracking.sinks import check as check_services

OWN = "own"  # the name of the checkpoint's chat template


@dataclass(frozen=True)
class Request(RunOptions):
    """What the user asked for: the options that decide a run, and settings by dotted keys."""

    random_backbone: Annotated[bool, Option("random weights of the backbone's shape")] = False
    settings: Mapping[str, Any] | None = None


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
    chat: str | None = None  # the chat template
    search: SearchRecord | None = None  # the trials by which the settings were found

    @property
    def scoring(self) -> ScoringName:
        """How answers are chosen: the rule by name, or "generation"."""
        return scoring_of(self.task, self.template, self.spec.scoring)

    def zero_shot(self) -> Plan:
        """The same without delta and training."""
        none, spec = NoneConfig(), self.spec
        changes: dict[str, Any] = {"delta": none.model_dump(mode="json"), "recipe": None}
        if not spec.shots:  # which come from train, drawn by the seed
            changes["data"] = spec.data.model_copy(update={"train": None})
            changes["seed"] = 0 if spec.backbone.init == "checkpoint" else spec.seed
        spec = spec.model_copy(update={**changes, "search": None})
        return replace(self, spec=spec, delta=none, delta_name="none", search=None)

    def on_random_backbone(self) -> Plan:
        """The same on random weights of the same shape."""
        backbone = self.spec.backbone.model_copy(update={"init": "random"})
        spec = self.spec.model_copy(update={"backbone": backbone, "search": None})
        notes = (*self.notes, _random_weights(self.folder))
        return replace(self, spec=spec, notes=tuple(dict.fromkeys(notes)), search=None)


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
    width = attempt(lambda: folder.config.shape.width) if folder else None
    roles = (attempt(lambda: folder.config.roles) or {}) if width else {}
    apart = folder is None or folder.config.answers_apart
    delta, factor = attempt(_delta, request.delta, settings, width, roles, apart) or (None, 1.0)
    trains = delta is None or delta.delta_type != "none"
    template = splits = encoding = recipe = decoding = None
    if task is not None:
        named = None if request.recipe is None else attempt(find_recipe, task, request.recipe)
        if named is not None:
            request = _with_recipe(request, named)
        template = attempt(find_template, task, request.template)
        # Without training it only names the majority.
        optional = () if trains or request.shots else ("train",)
        if template is not None and request.scoring is not None:
            problem = unfit(task, template, request.scoring)
            problems += [problem] if problem else []
        data, fold = data_folder(task, request.data), request.fold
        splits = attempt(lambda: find_splits(task, data, SPLITS, optional, fold=fold))
        defaults = {**task.recipe, **(task.sample_recipe if request.data is None else {})}
        if named is not None:  # made for the delta that it was published with
            defaults, factor = dict(named.settings), 1.0
        defaults["lr"] = factor * defaults.get("lr", Recipe.model_fields["lr"].default)
        encoding = attempt(_encoding, settings, defaults, folder)
        recipe = attempt(build, Recipe, "train", settings, defaults) if trains else None
        if isinstance(task.answer, Generate):
            decoding = attempt(_decoding, task.answer, settings, defaults)
    chat = None
    if folder is not None and request.chat_template is not None:
        chat = attempt(chat_template, folder, request.chat_template)
    execution = attempt(build, Execution, "run", settings, {})
    if execution is not None:
        attempt(check_services, execution.track)
        problems += placement(execution, delta, request.precision, request.quantize)
        if execution.memory_limit and (trains or request.random_backbone):
            problems.append(
                "run.memory_limit works without training (--delta none, predict, generate) and "
                "with the backbone's own weights only; omit it."
            )
    if request.shot_choice != "balanced" and not request.shots:
        problems.append("--shot-choice has no effect without --shots.")
    if task is not None and not isinstance(task.answer, Generate):
        problems += [
            f"{key} has no effect: task {task.name} generates no text."
            for key in settings
            if key.startswith("decode.")
        ]
    for key in settings:
        if key.partition(".")[0] not in (*PARTS, "delta"):
            option = key.replace("-", "_") in RunOptions.__dataclass_fields__
            hint = f" It is an option: --{key.replace('_', '-')}." if option else ""
            problems.append(f"there is no setting '{key}'.{hint or did_you_mean(key, KEYS)}")
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
    notes += [file.note for file in splits.values() if file.note]
    own = [file.sha256 for file in splits.values() if not file.note]
    if len(set(own)) < len(own):
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
            scoring=None if request.scoring == template.own_scoring else request.scoring,
            shots=request.shots,
            shot_choice=request.shot_choice,
            chat_template=None if chat is None else chat_sha256(chat),
            metrics=(*task.metrics, *template.metrics),
            data=DataSpec(
                train=splits["train"].sha256 if trains or request.shots else None,
                dev=splits["dev"].sha256,
                test=splits["test"].sha256,
                limit=request.limit,
                skip_bad_rows=request.skip_bad_rows,
                sample=sample,
                fold=request.fold,
                folds=None
                if request.fold is None
                else folds_sha256(task, data_folder(task, request.data)),
            ),
            backbone=BackboneSpec(
                sha256=folder.sha256(),
                init="random" if request.random_backbone else "checkpoint",
                quantize=request.quantize,
                family=folder.config.family,
            ),
            delta=delta.model_dump(mode="json"),
            encoding=encoding,
            decoding=decoding,
            recipe=recipe,
            seed=request.seed if trains or request.random_backbone or request.shots else 0,
            precision=request.precision,
        )
    except ValidationError as error:
        raise UserError("\n".join(f"{fault}." for fault in faults(error))) from error
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
        chat,
    )


def _random_weights(folder: BackboneFolder) -> str:
    return f"the backbone {folder.name} has random weights"


def find_recipe(task: Task, name: str) -> NamedRecipe:
    """Return a task's recipe by name, or raise UserError."""
    if name not in task.recipes:
        known = did_you_mean(name, task.recipes) if task.recipes else " It has none by name."
        raise UserError(f"task {task.name} has no recipe '{name}'.{known}")
    return task.recipes[name]


def _with_recipe(request: Request, named: NamedRecipe) -> Request:
    """The request with the recipe's template, and its rule if that template is used."""
    template = request.template or named.template
    rule = named.scoring if template == named.template else None
    return replace(request, template=template, scoring=request.scoring or rule)


def find_template(task: Task, name: str | None) -> Template:
    """Return a task's template by name (None: the default), or raise UserError. NAME@VERSION is an
    earlier version."""
    template = task.template(name)
    if template is None and name and (of := re.fullmatch(r"(.+)@(\d{1,4})", name)):
        template = task.earlier_template(of[1], int(of[2]))
    if template is None:
        known = [t.name for t in task.templates]
        raise UserError(
            f"task {task.name} has no template '{name}'.{did_you_mean(str(name), known)}"
        )
    return template


def chat_template(folder: BackboneFolder, name: str) -> str:
    """The text of a chat template: "own" is the checkpoint's, another name a file's.

    Raises UserError if the backbone has none, or the file cannot be read.
    """
    own = folder.chat_template() if name == OWN else None
    return own or read_text(Path(name), "chat template", MOST_TEMPLATE, pipe=True)


def chat_sha256(text: str) -> str:
    """The fingerprint of a chat template."""
    return hashlib.sha256(text.encode()).hexdigest()


def encoding_of(task: Task, settings: Mapping[str, Any]) -> Encoding:
    """The task's encoding defaults with the user's `encode.*` settings."""
    return build(Encoding, "encode", settings, task.recipe)


def _encoding(
    settings: Mapping[str, Any], defaults: Mapping[str, Any], folder: BackboneFolder | None
) -> Encoding:
    encoding = build(Encoding, "encode", settings, defaults)
    if folder is None:
        return encoding
    for name in Encoding.OMITTED:
        if name not in folder.settings and f"encode.{name}" in settings:
            raise UserError(
                f"encode.{name} has no effect: models of the family {folder.config.family} have "
                "no such setting; omit it."
            )
    check_length(encoding.max_length, folder.config, "encode.max_length")
    return fitting(encoding, folder)


def _decoding(
    answer: Generate, settings: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Decoding:
    of_task = {name: getattr(answer, name) for name in ("max_new_tokens", "beams", "n_best")}
    return build(Decoding, "decode", settings, {**of_task, **defaults})


def make_delta(folder: BackboneFolder, name: str) -> DeltaConfig:
    """A preset as a run on this backbone has it; raise UserError if the backbone cannot have it."""
    config = folder.config
    roles = config.roles
    return _delta(name, {}, config.shape.width, roles, config.answers_apart)[0]


def _delta(
    name: str,
    settings: Mapping[str, Any],
    width: int | None,
    roles: Mapping[str, tuple[str, ...]],
    answers_apart: bool,
) -> tuple[DeltaConfig, float]:
    """A delta's config, and what it multiplies the task's learning rate with."""
    config = load_preset(name)
    for key, value in settings.items():
        part, _, setting = key.partition(".")
        if part == "delta":
            config[setting] = value
    where = f"delta {name}"
    parsed = parse_config(config, where)
    check_masks(parsed, answers_apart)
    return (with_names(parsed, roles) if roles else parsed), lr_factor(config, where, width)
