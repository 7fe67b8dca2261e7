"""The paths and names that callers give."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from cpm_tune.errors import UserError

AnyPath = str | PathLike[str]


def path_of(value: object, name: str) -> Path:
    """A caller's path; raise UserError for anything else."""
    if not isinstance(value, str | PathLike) or not str(value):
        raise UserError(f"{name} is {value!r}, expected a path.")
    return Path(value)


def name_of(value: object, name: str) -> str:
    """A caller's name or path as a text; raise UserError for anything else."""
    return value if isinstance(value, str) and value else str(path_of(value, name))
