"""The published figures of results/published/: read, checked, and made into quoted rows."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cpm_tune.common.faults import faults
from cpm_tune.common.paths import shipped
from cpm_tune.errors import UserError


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Source(_Part):
    """Where the figures of a file were printed."""

    title: str
    paper: str
    note: str = ""


class Figure(_Part):
    """A printed test score, 0..100. `metric` is this project's nearest, `printed` the source's."""

    value: float
    metric: str
    printed: str
    note: str = ""


class PublishedRow(_Part):
    """A model and how it was tuned; `scores` by task."""

    name: str
    setting: str
    printed_index: float | None = None
    scores: dict[str, Figure]


class Published(_Part):
    """One file: one source."""

    schema_version: Literal[1]
    source: Source
    rows: tuple[PublishedRow, ...]


def published_folder() -> Path:
    """The folder of the shipped files: inside the wheel, else below results/."""
    inside = shipped("published")
    return inside if inside.is_dir() else shipped("results") / "published"


def read_published(folder: Path | None = None) -> dict[str, Published]:
    """Map file stem to its contents, sorted. UserError names the file and the first fault."""
    found = {}
    for path in sorted((folder or published_folder()).glob("*.json")):
        try:
            found[path.stem] = Published.model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError as error:
            raise UserError(f"{path}: not published figures: {faults(error)[0]}.") from error
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not readable ({error}).") from error
    return found


def baseline(published: dict[str, Published], name: str) -> dict[str, Figure]:
    """The scores by task of the named model on the CUGE lite board."""
    rows = published["cuge-lite-board"].rows
    return dict(next(row for row in rows if row.name == name).scores)
