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
from cpm_tune.common.faults import expected
from cpm_tune.common.reading import read_mapping
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.planning.settings import DELTA_KEYS, KEYS, flat_settings
from cpm_tune.schema.options import BUNDLED, Control, Count, Limit, Precision, Quantize, Seed

CONTROLS: tuple[Control, ...] = ("zero-shot", "random-backbone")
_MOST_SEEDS = 1000  # of a range: more is a slip


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
    seeds: list[Any] = []
    for item in listed:
        first, _, last = str(item).partition("-")
        if first.isdecimal() and last.isdecimal() and 0 <= int(last) - int(first) < _MOST_SEEDS:
            seeds += range(int(first), int(last) + 1)
        else:
            seeds.append(item)
    return seeds


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
    template: Name | None = None
    precision: Precision | None = None
    quantize: Quantize | None = None
    limit: Limit | None = None
    nproc: Count | None = None
    set: Settings = {}
    grid: Grid = {}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Suite(SuiteOptions):
    """A benchmark: the product of its axes, with settings, grids and overrides."""

    about: str = ""
    tasks: Names
    deltas: Names = ("lora",)
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(_seeds), Field(min_length=1)] = (1,)
    backbones: Names = (BUNDLED,)
    include: Annotated[tuple[Path, ...], BeforeValidator(_listed)] = ()
    controls: Annotated[tuple[Control, ...], BeforeValidator(_listed)] = ("zero-shot",)
    set: Settings = Field(default_factory=dict)
    grid: Grid = Field(default_factory=dict)
    trials: tuple[Override, ...] = ()
