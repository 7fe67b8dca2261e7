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
    """Add the published results.

    A score is in the first official column of its dataset whose runs have its prompt and its
    scoring rule; if there is none, in a column of the dataset that has published results only.
    """
    rows: dict[tuple[str, str], PublishedRow] = {}
    for stem, file in read_published().items():
        board.sources[stem] = ". ".join(filter(None, (file.source.title, file.source.paper)))
        for model in file.rows:
            name, setting = model.name, model.setting
            new = PublishedRow(id=f"quoted: {name}, {setting}", name=name, setting=setting)
            row = rows.setdefault((name, setting), new)
            for task, score in model.scores.items():
                column = _same_protocol(board, task, score) or _apart(board, task, score, hierarchy)
                row.cells[column.id] = score.model_copy(update={"source": stem})
    board.columns.sort(key=lambda c: hierarchy.order(c.task))
    board.quoted = sorted(rows.values(), key=lambda row: (-len(row.cells), row.id))


def _same_protocol(board: Board, task: str, score: PublishedScore) -> Column | None:
    if not (score.scoring and score.template):
        return None
    columns = (c for c in board.columns if c.task == task and c.official and not c.protocol)
    asked = (score.scoring, score.template)
    return next((c for c in columns if (c.scoring, c.template_name) == asked), None)


def _apart(board: Board, task: str, score: PublishedScore, hierarchy: Hierarchy) -> Column:
    """The column of a dataset's published results alone."""
    column = Column(
        id=f"{task}#quoted",
        task=task,
        version=0,
        **hierarchy.dataset(task)._asdict(),
        metric=score.printed,
        signature="as published",
        higher_is_better=True,
        unit="own",
        official=True,
        notes=["published results only: no run here has their prompt and scoring rule"],
        apart=["official data, published results"],
    )
    there = next((c for c in board.columns if c.id == column.id), None)
    if there is None:
        board.columns.append(column)
    return there or column
