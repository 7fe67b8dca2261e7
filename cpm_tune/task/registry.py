"""Finds tasks and delta presets: the shipped ones, then files and folders given with --include."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpm_tune.common.paths import shipped
from cpm_tune.common.reading import read_json
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.metrics import get_metric
from cpm_tune.metrics.kinds import AnswerForm
from cpm_tune.schema.spec import Decoding, Encoding, Recipe
from cpm_tune.task import Choice, Options, Rank, Task
from cpm_tune.task.scoring import unfit


def task_files(include: Sequence[Path] = ()) -> dict[str, Path]:
    """Map task name to task file. The name is the file's stem; a name given twice is an error."""
    files: dict[str, Path] = {}
    for place in (shipped("tasks"), *include):
        if not place.exists():
            raise UserError(f"--include {place}: there is no such file or folder.")
        if place.is_file() and place.suffix != ".py":
            raise UserError(f"--include {place}: a task file is a Python file (.py).")
        for path in sorted(place.glob("*.py")) if place.is_dir() else [place]:
            if path.name.startswith("_"):
                continue
            if path.stem in files:
                raise UserError(
                    f"task '{path.stem}' is defined twice, in {files[path.stem]} and {path}; "
                    "rename one."
                )
            files[path.stem] = path
    return files


def load_task(name: str, include: Sequence[Path] = ()) -> Task:
    """Import one task file and return its TASK; raise UserError for what is wrong with it."""
    files = task_files(include)
    if name not in files:
        raise UserError(
            f"there is no task '{name}'; a task of your own needs --include FILE."
            f"{did_you_mean(name, files)}"
        )
    return _import_task(files[name])


def load_tasks(include: Sequence[Path] = ()) -> list[Task]:
    """Return all tasks, sorted by name."""
    return [_import_task(path) for _, path in sorted(task_files(include).items())]


def _import_task(path: Path) -> Task:
    spec = importlib.util.spec_from_file_location(f"cpm_tune_task_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: not a Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SystemExit as error:
        raise UserError(
            f"{path}: the task file does not load: it ends the program (exit code {error.code}); "
            "it should only define TASK."
        ) from error
    except Exception as error:  # the user's own code: name it whatever it raised
        raise UserError(f"{path}: the task file does not load: {error}") from error
    task = getattr(module, "TASK", None)
    if not isinstance(task, Task):
        raise UserError(f"{path}: expected a variable TASK of type cpm_tune.task.Task.")
    for template in task.templates:
        if template.scoring and (problem := unfit(task, template, template.scoring)):
            raise UserError(f"{path}: {problem}")
    for recipe in task.recipes.values():
        used = task.template(recipe.template)  # None in a task made of another's, with its own
        if used and recipe.scoring and (problem := unfit(task, used, recipe.scoring)):
            raise UserError(f"{path}: {problem}")
    of_templates = (name for template in task.templates for name in template.metrics)
    for name in (*task.metrics, *of_templates):
        try:
            metric = get_metric(name)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        kind, ranks = metric.kind, name == task.metrics[0]
        if not kind.answers & _answer_forms(task) or (kind.likelihood and ranks):
            raise UserError(
                f"{path}: metric '{name}' compares {metric.prediction}, which does not fit the "
                f"answer kind {type(task.answer).__name__}"
                f"{' here' if 'parsed' in kind.answers else ''}; see CONTRIBUTING.md."
            )
    known = {*Recipe.model_fields, *Encoding.model_fields, *Decoding.model_fields} - {"seed"}
    named = (key for recipe in task.recipes.values() for key in recipe.settings)
    for key in (*task.recipe, *task.sample_recipe, *named):
        if key not in known:
            raise UserError(f"{path}: no recipe setting '{key}'.{did_you_mean(key, known)}")
    if task.name != path.stem:
        raise UserError(
            f"{path}: its TASK has the name '{task.name}', expected that of the file; rename one "
            "of the two."
        )
    return task


def _answer_forms(task: Task) -> set[AnswerForm]:
    """What a task's answers are, for the metrics that may compare them."""
    answer = task.answer
    if isinstance(answer, Choice):
        return {"label"}
    if isinstance(answer, Options):
        return {"option"}
    if isinstance(answer, Rank):
        return {"scores"}
    if answer.n_best > 1:
        return {"texts"}
    return {"text", "parsed"} if answer.parse else {"text"}


def expand(names: str, include: Sequence[Path] = ()) -> list[str]:
    """Task names of a comma-separated list of tasks and suites (and "all"), each once, in order."""
    files = task_files(include)
    chosen: list[str] = []
    tasks: list[Task] | None = None
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name in files:
            chosen.append(name)
            continue
        tasks = load_tasks(include) if tasks is None else tasks
        members = [t.name for t in tasks if name == "all" or name in t.suites]
        if not members:
            known = {*files, "all", *(suite for t in tasks for suite in t.suites)}
            raise UserError(f"there is no task or suite '{name}'.{did_you_mean(name, known)}")
        chosen += members
    return list(dict.fromkeys(chosen))


def preset_files() -> dict[str, Path]:
    """Map preset name to its file in delta_configs/."""
    return {path.stem: path for path in sorted(shipped("delta_configs").glob("*.json"))}


def load_preset(name_or_path: str) -> dict[str, Any]:
    """Return the raw JSON object of a preset (by name) or of a user's file (by path)."""
    presets = preset_files()
    path = presets.get(name_or_path)
    if path is None:
        path = Path(name_or_path)
        if not path.is_file():
            if path.suffix == ".json" or len(path.parts) > 1:
                raise UserError(f"--delta {name_or_path}: there is no such file.")
            raise UserError(
                f"there is no delta '{name_or_path}'.{did_you_mean(name_or_path, presets)}"
            )
    try:
        config = read_json(path, unique_keys=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not valid JSON ({error}).") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(config).__name__}.")
    return config
