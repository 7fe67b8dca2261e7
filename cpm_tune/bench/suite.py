"""What a suite says: axes, settings, grids, and overrides for some of its cells.

A suite comes from the options of `bench`, from a YAML or JSON file, or from both (the options win).
The file is documented in docs/bench.md. All mistakes of a file are in the one UserError raised.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cpm_tune.backbone.bundled import NAME as EMBEDDED
from cpm_tune.common.faults import expected
from cpm_tune.common.reading import read_mapping
from cpm_tune.delta.config import CONFIGS
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.schema.spec import Decoding, Encoding, Execution, Recipe

Control = Literal["zero-shot", "random-backbone"]
CONTROLS: tuple[Control, ...] = ("zero-shot", "random-backbone")
_MOST_SEEDS = 1000  # of a range: more is a slip
_PARTS: Mapping[str, Any] = {
    "train": Recipe,
    "encode": Encoding,
    "decode": Decoding,
    "run": Execution,
}


def _listed(value: Any) -> Any:
    """One value, or a text with commas, is a list as well."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int) else value


def _seeds(value: Any) -> Any:
    """A list of seeds; "1-3" means 1, 2 and 3."""
    listed = _listed(value)
    if not isinstance(listed, list | tuple):
        return listed
    found: list[Any] = []
    for item in listed:
        first, _, last = str(item).partition("-")
        if first.isdecimal() and last.isdecimal() and 0 <= int(last) - int(first) < _MOST_SEEDS:
            found += range(int(first), int(last) + 1)
        else:
            found.append(item)
    return found


def _flat(settings: Any) -> Any:
    """{"train": {"lr": 1}} and {"train.lr": 1} both become {"train.lr": 1}."""
    if not isinstance(settings, dict):
        return settings
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        inner = value.items() if isinstance(value, dict) else [(None, value)]
        flat.update({f"{key}.{k}" if k is not None else str(key): _number(v) for k, v in inner})
    return flat


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as a text: it wants a dot."""
    if isinstance(value, list):
        return [_number(item) for item in value]
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_listed), Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Settings = Annotated[dict[str, Any], BeforeValidator(_flat)]
Values = Annotated[list[Any], Field(min_length=1)]
Grid = Annotated[dict[str, Values], BeforeValidator(_flat)]
Limit = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Match(_Part):
    """Which cells an override is for: those that every given field names. Tasks may be suites."""

    task: Names | None = None
    delta: Names | None = None
    backbone: Names | None = None


class Override(_Part):
    """What is otherwise for the cells of `match`; later overrides win over earlier ones."""

    match: Match
    skip: bool = False
    template: Name | None = None
    precision: Literal["fp32", "bf16"] | None = None
    limit: Limit | None = None
    nproc: Count | None = None
    set: Settings = {}
    grid: Grid = {}


class Suite(_Part):
    """A benchmark: the product of its axes, with settings, grids and overrides."""

    about: str = ""
    tasks: Names
    deltas: Names = ("lora",)
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(_seeds), Field(min_length=1)] = (1,)
    backbones: Names = (EMBEDDED,)
    template: Name | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    limit: Limit | None = None
    nproc: Count = 1
    skip_bad_rows: bool = False
    data: Path | None = None
    out: Path = Path("results")
    controls: Annotated[tuple[Control, ...], BeforeValidator(_listed)] = ("zero-shot",)
    include: Annotated[tuple[Path, ...], BeforeValidator(_listed)] = ()
    set: Settings = {}
    grid: Grid = {}
    cells: tuple[Override, ...] = ()


def make_suite(path: Path | None, options: Mapping[str, Any]) -> Suite:
    """The suite of a file (or none) with the options over it; `options["set"]` wins over every
    setting of the file, those of its overrides included.

    Raises UserError with every mistake, a line each.
    """
    values = dict(options)
    where = "bench"
    if path is not None:
        where = str(path)
        values = {**read_mapping(path, "--suite", "tasks: [ccpm]"), **values}
        said = options.get("set", {})
        if isinstance(values.get("cells"), list):
            values["cells"] = [_without(cell, said, options) for cell in values["cells"]]
        if path is not None and said:
            values["set"] = {
                **_as_dict(_flat(read_mapping(path, "--suite", "tasks: [ccpm]").get("set"))),
                **said,
            }
            grid = _flat(values.get("grid"))
            if isinstance(grid, dict):
                values["grid"] = {k: v for k, v in grid.items() if k not in said}
    try:
        suite = Suite.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(_sentences(error, path, options))) from error
    wrong = [f"{where}: {said}" for said in _unknown_settings(suite)]
    if wrong:
        raise UserError("\n".join(wrong))
    return suite


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _without(cell: Any, settings: Mapping[str, Any], options: Iterable[str]) -> Any:
    """An override without what the command line gives."""
    if not isinstance(cell, dict):
        return cell
    kept = {key: value for key, value in cell.items() if key == "set" or key not in options}
    for part in ("set", "grid"):
        flat = _flat(cell.get(part))
        if isinstance(flat, dict):
            kept[part] = {k: v for k, v in flat.items() if k not in settings}
    return kept


def _sentences(
    error: ValidationError, path: Path | None, options: Mapping[str, Any]
) -> Iterable[str]:
    faults = error.errors()
    foreign = {fault["loc"][:-1] for fault in faults if fault["type"] == "extra_forbidden"}
    for fault in faults:
        *parents, last = fault["loc"] or ("",)
        place = ".".join(map(str, fault["loc"]))
        where = str(path)
        if fault["type"] == "extra_forbidden":
            inside = ".".join(map(str, parents))
            model: type[BaseModel] = Suite
            if parents:
                model = Match if parents[-1] == "match" else Override
            known = did_you_mean(str(last), model.model_fields)
            yield f"{where}: no key '{last}' in {inside or 'a suite'}.{known}"
        elif fault["type"] == "missing":
            if last == "match" and fault["loc"][:-1] in foreign:
                continue  # written wrong: said above or below
            hint = " (--tasks NAME,NAME)" if place == "tasks" else ""
            yield f"{where}: {place} is missing{hint}."
        else:
            axis = place.partition(".")[0]
            shown = f"--{axis.replace('_', '-')}" if axis in options else f"{where}: {place}"
            yield f"{shown} is {fault['input']!r}, expected {expected(fault)}."


def _unknown_settings(suite: Suite) -> Iterable[str]:
    """Keys of `set` and `grid` that exist nowhere, wherever they stand."""
    deltas = {name for config in CONFIGS.values() for name in config.model_fields}
    known = {f"delta.{name}" for name in deltas - {"delta_type"}}
    known |= {f"{part}.{name}" for part, model in _PARTS.items() for name in model.model_fields}
    scopes = [("", suite.set, suite.grid)]
    scopes += [(f"cells.{i}.", cell.set, cell.grid) for i, cell in enumerate(suite.cells)]
    for place, settings, grid in scopes:
        for part, keys in (("set", settings), ("grid", grid)):
            for key in keys:
                if key not in known:
                    yield f"{place}{part}: there is no setting '{key}'.{did_you_mean(key, known)}"
        for key in grid:
            if key in settings:
                yield f"{place}grid: '{key}' is in set as well; keep one of the two."
        for key in grid:
            if key.startswith("run."):
                yield f"{place}grid: '{key}' changes no result; put it in set."
