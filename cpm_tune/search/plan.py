"""A search, planned: what is searched, on what budget, and the plans of its trials and its run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cpm_tune.common.door import load
from cpm_tune.errors import UserError
from cpm_tune.planning.plan import Plan, Request, make_plan
from cpm_tune.schema.record import SearchRecord
from cpm_tune.schema.spec import SearchSpec
from cpm_tune.search.space import Dimension, default_space, make_space
from cpm_tune.search.study import check_optuna
from cpm_tune.task.registry import load_preset

FOLDER = ".search"  # of a results folder


@dataclass(frozen=True)
class Search:
    """A checked search. `plan` is the run with the settings that are not searched at their own
    values, `first` its values of those that are."""

    request: Request
    plan: Plan
    space: Mapping[str, Dimension]
    spec: SearchSpec
    first: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of its folder. A larger budget goes on with the same trials, so it is no part of
        the name."""
        spec = self.plan.spec
        space = {key: str(values) for key, values in self.space.items()}
        decides = [spec.sha256, space, self.spec.sampler, self.spec.pruner, self.spec.seed]
        sha = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
        return f"{spec.task}.{spec.delta['delta_type']}.s{self.spec.seed}.{sha[:12]}"

    def folder(self, out: Path) -> Path:
        """Where its trials are."""
        return out / FOLDER / self.name

    def trial_plan(self, values: Mapping[str, Any]) -> Plan:
        """The plan of a trial. Raises UserError if its settings do not go together."""
        settings = {**(self.request.settings or {}), **values}
        return make_plan(replace(self.request, settings=settings))

    def run_plan(self, values: Mapping[str, Any], record: SearchRecord, seed: int) -> Plan:
        """The plan of the run with the settings that were found."""
        settings = {**(self.request.settings or {}), **values}
        plan = make_plan(replace(self.request, settings=settings, seed=seed))
        spec = plan.spec.model_copy(update={"search": self.spec})
        return replace(plan, spec=spec, search=record)


def make_search(
    request: Request,
    space: Mapping[str, Any],
    *,
    trials: int,
    seconds: int | None = None,
    prune: bool = True,
    where: str = "--space",
) -> Search:
    """Check a request, its space (empty: the default one) and every end and value of it.

    Raises UserError with every mistake, a line each; nothing is written.
    """
    check_optuna()
    settings = request.settings or {}
    given = make_space(space, where, load_preset(request.delta).get("delta_type"))
    if both := sorted(given.keys() & settings.keys()):
        raise UserError(
            "\n".join(f"{where} {key}: it is set as well; keep one of the two." for key in both)
        )
    plan = make_plan(request)
    recipe = plan.spec.recipe
    if recipe is None:
        raise UserError(f"--delta {request.delta} trains nothing, so there is nothing to search.")
    if request.random_backbone:
        raise UserError("a search is for the backbone's own weights; omit the random backbone.")
    chosen = given or {
        key: values
        for key, values in default_space(recipe, plan.delta).items()
        if key not in settings
    }
    if not chosen:
        raise UserError(f"{where}: every setting of the default space is set; give a space.")
    search = Search(
        request,
        plan,
        chosen,
        SearchSpec(
            space={key: str(values) for key, values in chosen.items()},
            trials=trials,
            seconds=seconds,
            pruner="median" if prune else None,
            seed=plan.spec.seed,
        ),
        _own_values(plan, chosen),
    )
    problems = [
        f"{where} {key}={values}: {line}"
        for key, values in chosen.items()
        for line in _faults(search, key, values)
    ]
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    return search


def _faults(search: Search, key: str, values: Dimension) -> list[str]:
    """What is wrong with the ends of a range, or with values of a list."""
    tokenizer = search.plan.folder.tokenizer() if key.startswith("delta.") else None
    make_skeleton = load("cpm_tune.planning.skeleton:make_skeleton")
    for value in values.checked:
        try:
            plan = search.trial_plan({key: value})
            if tokenizer is not None:
                make_skeleton(plan.folder.config, plan.delta, tokenizer)
        except UserError as error:
            return str(error).split("\n")
    return []


def _own_values(plan: Plan, space: Mapping[str, Dimension]) -> dict[str, Any]:
    """The run's own values of the settings that are searched, where it has them."""
    spec = plan.spec
    parts: dict[str, Any] = {
        "train": spec.recipe,
        "encode": spec.encoding,
        "decode": spec.decoding,
        "delta": plan.delta,
    }
    own = {}
    for key in space:
        part, _, name = key.partition(".")
        value = getattr(parts[part], name, None)
        own[key] = list(value) if isinstance(value, tuple) else value
    return own
