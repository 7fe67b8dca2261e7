"""What sets a run apart from its task's recipe, and the command that makes it again.

Only the settings that differ are in the command, so that it reads as its user would type it. The
task's recipes (its own, and those by name) and the delta's preset are what they differ from; of
several recipes it is the one with the fewest differences.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cpm_tune.backbone.families import roles_in
from cpm_tune.delta.config import lr_factor, parse_config, with_names
from cpm_tune.errors import UserError, readable
from cpm_tune.planning.recorded import is_bundled
from cpm_tune.planning.settings import build
from cpm_tune.schema.frozen import Extended
from cpm_tune.schema.record import RunRecord
from cpm_tune.schema.spec import FAMILY, Decoding, Encoding, Execution, Recipe
from cpm_tune.task import Generate, NamedRecipe, Task
from cpm_tune.task.registry import load_preset, preset_files

_OWN = ""  # the name of the recipe that a task has without --recipe


@dataclass(frozen=True)
class Difference:
    """A setting of a run, and what the recipe has; `known` is False if that depends on the
    backbone."""

    key: str
    value: Any
    usual: Any
    known: bool = True


@dataclass(frozen=True)
class Repeat:
    """`recipe` is the name of the nearest one ("" for the task's own); `command` makes the run
    again. `changed` are settings that only the record has, or only this version."""

    recipe: str
    differences: tuple[Difference, ...]
    command: str
    changed: tuple[str, ...] = ()


def repeat_of(record: RunRecord, task: Task) -> Repeat:
    """How to make a run again; UserError if its delta has no preset any more."""
    delta, usual_delta, factor = _delta(record)
    recipes: dict[str, NamedRecipe | None] = {_OWN: None, **task.recipes}
    made = {
        name: [*_options(record, task, named), *_settings(record, task, named, factor)]
        for name, named in recipes.items()
    }
    recipe = min(made, key=lambda name: len(made[name]))
    differences = (*made[recipe], *_in(record.spec.delta, usual_delta, "delta"))
    usual = Execution().model_dump(mode="json")
    execution = tuple(_in(record.execution.model_dump(mode="json"), usual, "run"))
    bundled = is_bundled(task, record)
    command = _command(record, delta, recipe, (*differences, *execution), bundled)
    changed = tuple(f"delta.{key}" for key in sorted({*record.spec.delta} ^ {*usual_delta}))
    return Repeat(recipe, differences, command, changed)


def _delta(record: RunRecord) -> tuple[str, dict[str, Any], float | None]:
    """A preset of the run's method (that of its name, if there is one), its settings, and its
    factor on the learning rate; None if that depends on the backbone's width."""
    kind = record.spec.delta["delta_type"]
    alike = [name for name in preset_files() if load_preset(name).get("delta_type") == kind]
    if not alike:
        raise UserError(f"no preset has the delta_type '{kind}' of the record.")
    name = record.delta.name if record.delta.name in alike else alike[0]
    values = load_preset(name)
    config = parse_config(values, name)
    if roles := roles_in(record.spec.backbone.family):
        config = with_names(config, roles)
    factor = None if "lr_width" in values else lr_factor(values, name)
    return name, config.model_dump(mode="json"), factor


def _options(record: RunRecord, task: Task, named: NamedRecipe | None) -> Iterator[Difference]:
    """The options in which a run differs from the recipe, by their names in Python."""
    spec = record.spec
    template = task.template(named.template if named else None)
    if template is not None:
        asked = (spec.template, spec.template_version)
        if asked != (template.name, template.version):
            current = task.template(spec.template)
            whole = current is not None and current.version == spec.template_version
            name = spec.template if whole else f"{spec.template}@{spec.template_version}"
            yield Difference("template", name, template.name)
        rule = named.scoring if named and asked == (template.name, template.version) else None
        of_run = task.template_of(spec.template, spec.template_sha256)
        own = of_run.own_scoring if of_run is not None else None
        if (spec.scoring or own) != (rule or own):
            yield Difference("scoring", spec.scoring or own, rule or own)
    usual: Mapping[str, tuple[Any, Any]] = {
        "precision": (spec.precision, "fp32"),
        "quantize": (spec.backbone.quantize, None),
        "limit": (spec.data.limit, None),
        "fold": (spec.data.fold, None),
        "skip_bad_rows": (spec.data.skip_bad_rows, False),
        "shots": (spec.shots, 0),
        "shot_choice": (spec.shot_choice, "balanced"),
        "chat_template": ("chat_template.jinja" if spec.chat_template else None, None),
    }
    for key, (value, default) in usual.items():
        if value != default:
            yield Difference(key, value, default)


def _settings(
    record: RunRecord, task: Task, named: NamedRecipe | None, factor: float | None
) -> Iterator[Difference]:
    spec = record.spec
    sample = task.sample_recipe if is_bundled(task, record) else {}
    defaults = dict(named.settings) if named else {**task.recipe, **sample}
    lr = defaults.get("lr", Recipe.model_fields["lr"].default)
    defaults["lr"] = lr if named else (factor or 1.0) * lr
    if spec.recipe is not None:
        usual = _whole(build(Recipe, "train", {}, defaults))
        for each in _in(_whole(spec.recipe), usual, "train"):
            known = each.key != "train.lr" or factor is not None or named is not None
            yield replace(each, known=known)
    usual = _whole(build(Encoding, "encode", {}, defaults))
    of_ant = spec.backbone.family == FAMILY
    for each in _in(_whole(spec.encoding), usual, "encode"):
        known = of_ant or each.key.partition(".")[2] not in Encoding.OMITTED
        if known or each.value is not None:  # None: other families do not have it
            yield replace(each, known=known)
    if spec.decoding is not None and isinstance(task.answer, Generate):
        names = ("max_new_tokens", "beams", "n_best")
        of_task = {name: getattr(task.answer, name) for name in names}
        decoding = build(Decoding, "decode", {}, {**of_task, **defaults})
        usual = decoding.model_dump(mode="json")
        yield from _in(spec.decoding.model_dump(mode="json"), usual, "decode")


def _whole(model: Extended) -> dict[str, Any]:
    """A model's values, with those that its JSON leaves out."""
    return {**model.OMITTED, **model.model_dump(mode="json")}


def _in(values: Mapping[str, Any], usual: Mapping[str, Any], part: str) -> Iterator[Difference]:
    """The values that are not the usual ones. A setting that `values` lack is newer than they are:
    the run did not choose it, and a command cannot either."""
    for key in sorted(values):
        if values[key] != usual.get(key):
            yield Difference(f"{part}.{key}", values.get(key), usual.get(key))


def _command(
    record: RunRecord, delta: str, recipe: str, differences: tuple[Difference, ...], bundled: bool
) -> str:
    spec, search = record.spec, record.spec.search
    seed = spec.seed if search is None else search.seed
    words = ["python", "tune.py", *([] if search is None else ["search"]), "--task", spec.task]
    words += ["--backbone", record.backbone.name, "--delta", delta, "--seed", str(seed)]
    if not bundled:
        words += ["--data", "DIR"]
    if recipe:
        words += ["--recipe", recipe]
    if spec.backbone.init == "random":
        words += ["--control", "random-backbone"]
    if search is not None:
        words += ["--seeds", str(spec.seed)] if spec.seed != seed else []
        words += [w for key, values in search.space.items() for w in ("--space", f"{key}={values}")]
        words += ["--trials", str(search.trials)]
        words += [] if search.seconds is None else ["--seconds", str(search.seconds)]
        words += [] if search.pruner else ["--no-prune"]
    for each in differences:
        if search is not None and each.key in search.space:
            continue
        if "." in each.key:
            words += ["--set", f"{each.key}={_yaml(each.value)}"]
        else:
            words.append("--" + each.key.replace("_", "-"))
            words += [] if each.value is True else [str(each.value)]
    command = shlex.join(map(readable, words))  # names are anybody's: no control characters
    if spec.delta_scale == 1:
        return command
    whole = spec.model_copy(update={"delta_scale": 1.0}).run_id
    return f"{command} && python tune.py scale results/{whole} --by {spec.delta_scale:g}"


def _yaml(value: Any) -> str:
    """A value as `--set` reads it: JSON, but texts as they are."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
