"""What a suite says: axes, settings, grids, and overrides for some of its trials.

A suite comes from the options of `bench`, from a YAML or JSON file, or from both (the options win).
docs/bench.md documents the file. All mistakes of a file are in the one UserError raised.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from cpm_tune.bench.options import SuiteOptions
from cpm_tune.bench.searched import Searching, Space
from cpm_tune.common.faults import expected
from cpm_tune.common.option import split_list
from cpm_tune.common.reading import read_mapping
from cpm_tune.common.sizes import value_text
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.planning.settings import DELTA_KEYS, KEYS, flat_settings
from cpm_tune.schema.options import (
    BUNDLED,
    Control,
    Count,
    Fold,
    Limit,
    Precision,
    Quantize,
    Scoring,
    Seed,
    ShotChoice,
    ShotCount,
)
from cpm_tune.search.space import make_space


def _listed(value: Any) -> Any:
    """One value, or a text with commas, is a list as well."""
    if isinstance(value, str):
        return split_list(value)
    return [value] if isinstance(value, int) else value


def _seeds(value: Any) -> Any:
    """A list of seeds, in which "1-3" is 1, 2 and 3."""
    entries = value if isinstance(value, list | tuple) else [value]
    split = (split_list(e, ranges=True) if isinstance(e, str) else [e] for e in entries)
    return [seed for seeds in split for seed in seeds]


def _flat(value: Any) -> Any:
    return flat_settings(value) if isinstance(value, dict) else value


Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_listed), Field(min_length=1)]
Settings = Annotated[dict[str, Any], BeforeValidator(_flat)]
Grid = Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], BeforeValidator(_flat)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Match(_Part):
    """Selects trials: those that every given field names. Tasks may be task groups."""

    task: Names | None = None
    delta: Names | None = None
    backbone: Names | None = None


class Override(_Part):
    """Changes the trials of `match`; later overrides win over earlier ones."""

    match: Match
    skip: bool = False
    recipe: Name | None = None
    template: Name | None = None
    scoring: Scoring | None = None
    chat_template: Name | None = None
    shots: ShotCount | None = None
    shot_choice: ShotChoice | None = None
    precision: Precision | None = None
    quantize: Quantize | None = None
    limit: Limit | None = None
    nproc: Count | None = None
    set: Settings = {}
    grid: Grid = {}
    space: Space | None = None


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Suite(SuiteOptions):
    """A benchmark: the product of its axes, with settings, grids and overrides."""

    about: str = ""
    tasks: Names
    deltas: Names = ("lora",)
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(_seeds), Field(min_length=1)] = (1,)
    folds: Annotated[tuple[Fold, ...], BeforeValidator(_seeds)] = ()
    backbones: Names = (BUNDLED,)
    include: Annotated[tuple[Path, ...], BeforeValidator(_listed)] = ()
    controls: Annotated[tuple[Control, ...], BeforeValidator(_listed)] = ("zero-shot",)
    set: Settings = Field(default_factory=dict)
    grid: Grid = Field(default_factory=dict)
    search: Searching | None = None
    trials: tuple[Override, ...] = ()

    @property
    def settings(self) -> frozenset[str]:
        """Every setting of `set` and `grid`, of overrides too."""
        inside = (key for trial in self.trials for key in (*trial.set, *trial.grid))
        return frozenset((*self.set, *self.grid, *inside))


def make_suite(path: Path | None, options: Mapping[str, Any]) -> Suite:
    """The suite of a file (or none) with the options over it; `options["set"]` wins over every
    setting of the file, those of its overrides included.

    Raises UserError with every mistake, a line each.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = read_mapping(path, "--suite", "tasks: [ccpm]")
        if "cells" in values:  # their older name
            if "trials" in values:
                raise UserError(f"{path}: cells is an older name of trials; keep one of the two.")
            values["trials"] = values.pop("cells")
        missing = {"tasks": options["tasks"]} if "tasks" in options else {}
        _validated({**missing, **values}, str(path), {})  # also what an option replaces
        values = _without(values, options)
        if isinstance(values.get("trials"), list):
            values["trials"] = [_without(override, options) for override in values["trials"]]
    values |= {key: value for key, value in options.items() if key != "set"}
    if settings := options.get("set"):
        in_file = _flat(values.get("set") or {})
        values["set"] = {**in_file, **settings} if isinstance(in_file, dict) else in_file
    where = "bench" if path is None else str(path)
    suite = _validated(values, where, options)
    if wrong := [f"{where}: {problem}" for problem in _unknown_settings(suite)]:
        raise UserError("\n".join(wrong))
    return suite


def _validated(values: Mapping[str, Any], where: str, options: Mapping[str, Any]) -> Suite:
    try:
        return TypeAdapter(Suite).validate_python(values)
    except ValidationError as error:
        raise UserError("\n".join(_sentences(error, where, options))) from error


def _without(scope: Any, options: Mapping[str, Any]) -> Any:
    """A suite or an override, without what the options set."""
    if not isinstance(scope, dict):
        return scope
    kept = {key: value for key, value in scope.items() if key == "set" or key not in options}
    for part in ("set", "grid"):
        flat = _flat(scope.get(part) or {})
        if isinstance(flat, dict):
            kept[part] = {k: v for k, v in flat.items() if k not in options.get("set", {})}
    return kept


def _sentences(error: ValidationError, where: str, options: Mapping[str, Any]) -> Iterable[str]:
    faults = error.errors(include_url=False)
    foreign = ("extra_forbidden", "unexpected_keyword_argument", "invalid_key")
    wrong_keys = {fault["loc"][:-1] for fault in faults if fault["type"] in foreign}
    for fault in faults:
        *parents, last = fault["loc"] or ("",)
        place = ".".join(map(str, fault["loc"]))
        if fault["type"] in foreign:
            inside = ".".join(map(str, parents))
            known = [field.name for field in fields(Suite)]
            if parents:
                models: dict[Any, type[BaseModel]] = {"match": Match, "search": Searching}
                known = list(models.get(parents[-1], Override).model_fields)
            hint = did_you_mean(str(last), known)
            yield f"{where}: no key '{last}' in {inside or 'a suite'}.{hint}"
        elif fault["type"] == "missing":
            if last == "match" and fault["loc"][:-1] in wrong_keys:
                continue  # the mistake is in the key, which has its own sentence
            hint = " (--tasks NAME,NAME)" if place == "tasks" else ""
            yield f"{where}: {place} is missing{hint}."
        else:
            axis = place.partition(".")[0]
            shown = f"--{axis.replace('_', '-')}" if axis in options else f"{where}: {place}"
            if fault["type"] == "value_error":  # of a validator here: a clause about the key
                reason = str(fault["msg"]).removeprefix("Value error, ")
                yield f"{shown}{'' if reason.startswith('is ') else ':'} {reason}."
                continue
            yield f"{shown} is {value_text(fault['input'])}, expected {expected(fault)}."


def _unknown_settings(suite: Suite) -> Iterable[str]:
    """Settings of `set` and `grid` that do not exist, or that are in the wrong one of the two."""
    known = KEYS | DELTA_KEYS
    scopes: list[tuple[str, Suite | Override]] = [("", suite)]
    scopes += [(f"trials.{i}.", override) for i, override in enumerate(suite.trials)]
    for place, scope in scopes:
        for part, keys in (("set", scope.set), ("grid", scope.grid)):
            for key in keys:
                if key not in known:
                    yield f"{place}{part}: there is no setting '{key}'.{did_you_mean(key, known)}"
        for key in scope.grid:
            if key in scope.set:
                yield f"{place}grid: '{key}' is in set as well; keep one of the two."
            if key.startswith("run."):
                yield f"{place}grid: '{key}' changes no result; put it in set."
    yield from _faults_of_search(suite)


def _faults_of_search(suite: Suite) -> Iterable[str]:
    """What is wrong with the search of a suite, and with the spaces of its overrides."""
    spaces = [(f"trials.{i}.space", o.space) for i, o in enumerate(suite.trials) if o.space]
    if suite.search is None:
        yield from (f"{place} has no effect without search." for place, _ in spaces)
        return
    for place, space in (("search.space", suite.search.space), *spaces):
        try:
            keys = make_space(space, place)
        except UserError as error:
            yield from (line.removesuffix(".") + "." for line in str(error).split("\n"))
            continue
        for key in keys:
            if key in suite.settings:
                yield f"{place} {key}: it is in set or grid as well; keep one of the two."
