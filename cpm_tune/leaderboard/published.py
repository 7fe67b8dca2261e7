"""Published results: the files of results/published/, read, checked, and made into rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from cpm_tune.common.faults import faults
from cpm_tune.common.paths import shipped
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.board import Board, Column, Part, PublishedRow, PublishedScore
from cpm_tune.leaderboard.hierarchy import Hierarchy


class Publication(Part):
    """Where the scores of a file were printed."""

    title: str
    paper: str
    note: str = ""


class PublishedModel(Part):
    """A model and how it was tuned; `scores` by task."""

    name: str
    setting: str
    printed_index: float | None = None
    scores: dict[str, PublishedScore]


class PublishedFile(Part):
    """One file: one source."""

    schema_version: Literal[1]
    source: Publication
    rows: tuple[PublishedModel, ...]


def published_folder() -> Path:
    """The folder of the shipped files: inside the wheel, else below results/."""
    inside = shipped("published")
    return inside if inside.is_dir() else shipped("results") / "published"


def read_published(folder: Path | None = None) -> dict[str, PublishedFile]:
    """Map file stem to its contents, sorted. UserError names the file and the first fault."""
    files = {}
    for path in sorted((folder or published_folder()).glob("*.json")):
        try:
            files[path.stem] = PublishedFile.model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError as error:
            raise UserError(f"{path}: not published results: {faults(error)[0]}.") from error
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not readable ({error}).") from error
    return files


def baseline(published: Mapping[str, PublishedFile], name: str) -> dict[str, PublishedScore]:
    """The scores by task of the named model on the CUGE lite board."""
    models = published["cuge-lite-board"].rows
    return dict(next(model for model in models if model.name == name).scores)


def add_published(board: Board, hierarchy: Hierarchy) -> None:
    """Add the published results. Their scores are in the first official column of their dataset; if
    there is none, in a column of their own, which no measured row enters."""
    files = read_published()
    models = [model for file in files.values() for model in file.rows]
    columns = board.official_columns()
    for task in sorted({task for model in models for task in model.scores} - set(columns)):
        metric = next(model.scores[task].printed for model in models if task in model.scores)
        columns[task] = Column(
            id=f"{task}#quoted",
            task=task,
            version=0,
            **hierarchy.dataset(task)._asdict(),
            metric=metric,
            signature="as published",
            higher_is_better=True,
            unit="own",
            official=True,
            notes=["published results only: no run on the official data here"],
            apart=["official data, published results"],
        )
        board.columns.append(columns[task])
    board.columns.sort(key=lambda c: hierarchy.order(c.task))
    rows: dict[tuple[str, str], PublishedRow] = {}
    for stem, file in files.items():
        board.sources[stem] = ". ".join(filter(None, (file.source.title, file.source.paper)))
        for model in file.rows:
            name, setting = model.name, model.setting
            new = PublishedRow(id=f"quoted: {name}, {setting}", name=name, setting=setting)
            row = rows.setdefault((name, setting), new)
            for task, score in model.scores.items():
                row.cells[columns[task].id] = score.model_copy(update={"source": stem})
    board.quoted = sorted(rows.values(), key=lambda row: (-len(row.cells), row.id))
