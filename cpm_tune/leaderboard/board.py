"""Board: the whole leaderboard as one typed value, from which every export is made.

Scores are in the unit that their column names. `python -m cpm_tune.leaderboard.board` writes the
JSON Schema that ships with the package.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cpm_tune.task.scoring import ScoringName

SCHEMA = Path(__file__).with_name("board.schema.json")


class Part(BaseModel):
    """A part of a board: no unknown keys, no infinite numbers."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Column(Part):
    """Runs of one dataset that may be compared: same task version, prompt, scoring rule, data and
    metric.

    `scoring` is the rule by which answers are chosen ("" if no record names it). `protocol` lists
    what else the runs share that is not usual: shots, a chat template, numbers of another version.
    `unit` is "points" if 1.0 is shown as 100, else "own". `official` is False for sample data,
    limits, skipped bad rows and splits of another size: such a column is in no index. `apart` lists
    what tells it from other columns of its dataset. `majority` is the score of the most frequent
    answer, `shortcuts` the mean ones of answers that need no model, by name. `other_texts` is the
    number of cells without forgetting because it was measured on other texts than the board's,
    `repeats` what a cell's mean is over. A column of outside systems or of published results alone
    has no template and no dev split.
    """

    id: str
    task: str
    version: int
    capability: str
    kind: str
    suites: list[str]
    metric: str
    signature: str
    higher_is_better: bool
    unit: Literal["points", "own"]
    template: str = ""
    template_version: int = 0
    scoring: str = ""
    protocol: list[str] = []
    dev_sha256: str | None = None
    test_sha256: str | None = None
    n: int = 0
    official: bool
    notes: list[str] = []
    apart: list[str] = []
    majority: float | None = None
    shortcuts: dict[str, float] = {}
    other_texts: int = 0
    repeats: Literal["seeds", "folds"] = "seeds"

    @property
    def template_name(self) -> str:
        """The template with its version; "" without one."""
        return f"{self.template} v{self.template_version}" if self.template_version else ""


class Scaling(Part):
    """Training speed with a number of processes; `efficiency` is speed / (processes x the speed of
    one process), None if no run had one process."""

    world_size: int
    samples_per_second: float
    efficiency: float | None


class Cost(Part):
    """What a cell, or a row over all its cells, costs.

    `n_trainable`, `bytes` (of the saved delta) and `peak_memory_bytes` are the largest,
    `samples_per_second` (training alone) is the mean over runs, `seconds` the wall time of one run
    (mean over seeds; of a row: the sum over its datasets), `energy_joules` that of one run (mean,
    and sum, likewise). `samples_per_second_std` and `seconds_std` are the sample deviations over
    runs with equally many processes, the same ones again included; of a row of several datasets
    there are none. All None for an outside system.
    """

    n_trainable: int | None = None
    bytes: int | None = None
    samples_per_second: float | None = None
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    energy_joules: float | None = None
    samples_per_second_std: float | None = None
    seconds_std: float | None = None
    scaling: list[Scaling] = []


class SeedRun(Part):
    """One seed of a cell. `low` and `high` are the record's own 95% interval."""

    run_id: str
    seed: int
    value: float
    low: float
    high: float


class Places(Part):
    """The places from `first` to `last` among `of` rows that paired tests do not exclude."""

    first: int
    last: int
    of: int

    def __str__(self) -> str:
        places = f"{self.first}-{self.last}" if self.first < self.last else f"{self.first}"
        return f"{places} of {self.of}"


class Forgetting(Part):
    """By how many nats per character plain texts are predicted worse with the delta than without:
    the mean over sources (and seeds), and each source's. `texts` is their fingerprint, `hashes`
    are the SHA-256 of each source's."""

    mean: float
    sources: dict[str, float]
    texts: str
    hashes: dict[str, str] = Field({}, exclude=True)


class Cell(Part):
    """A row's score in a column: mean over seeds, with a 95% interval whose method is named.

    `std` (n - 1 in the denominator) is None for one seed, `places` if rows were not tested,
    `forgetting` if that was not measured. `missing_folds`: those that other cells of the column
    have; such a cell is in no comparison of places. `not_above`: the best
    shortcut of the column, if the score is not above that by more than its interval, else "".
    `others` are the means of the task's other metrics, `notes` the records' warnings.
    """

    mean: float
    std: float | None
    low: float
    high: float
    interval: str
    runs: list[SeedRun]
    others: dict[str, float] = {}
    settings: dict[str, str] = {}
    notes: list[str] = []
    missing_folds: list[int] = []
    not_above: str = ""
    places: Places | None = None
    forgetting: Forgetting | None = None
    cost: Cost


class Index(Part):
    """An index of a row; blank (None) if any of its datasets is `missing`. `places`: see Cell."""

    value: float | None
    missing: list[str] = []
    places: Places | None = None


class MeasuredRow(Part):
    """A backbone and a delta (and the settings that tell it from other rows of the two), or a
    outside system: then `backbone` is its name and `delta` is "outside system". `forgetting` is the
    mean over its cells, None unless all were measured on the same texts."""

    id: str
    backbone: str
    backbone_sha256: str
    control: str
    delta: str
    settings: dict[str, str]
    cells: dict[str, Cell]
    coverage: int
    indices: dict[str, Index] = {}
    forgetting: float | None = None
    cost: Cost


class PublishedScore(Part):
    """A published test score, 0..100. `metric` is this project's metric nearest to the `printed`
    one, `source` is the stem of the score's file. `scoring` and `template` say how it was measured,
    "" where the source does not say; "cpm-2 v2" is that template of the task."""

    value: float
    metric: str
    printed: str
    scoring: ScoringName | Literal[""] = ""
    template: str = ""
    source: str = ""
    note: str = ""

    @property
    def protocol(self) -> str:
        """How it was measured, in words."""
        if not self.scoring:
            return "how answers were scored is not published"
        return f"scored by {self.scoring}, {self.template or 'template not published'}"


class PublishedRow(Part):
    """Published results of a model: quoted, never measured here."""

    id: str
    name: str
    setting: str
    cells: dict[str, PublishedScore] = {}
    indices: dict[str, Index] = {}


class IndexRule(Part):
    """The definition of an index: its rule in words, its datasets (columns), and the baseline."""

    title: str
    rule: str
    columns: dict[str, str | None]
    baseline: str


class Board(Part):
    """The leaderboard of a results folder. `quoted` are the published results; `left_out` has one
    sentence per file that is not in."""

    schema_version: Literal[1] = 1
    columns: list[Column]
    rows: list[MeasuredRow]
    quoted: list[PublishedRow] = []
    sources: dict[str, str] = {}
    indices: dict[str, IndexRule] = {}
    n_runs: Annotated[int, Field(ge=0)] = 0
    left_out: list[str] = []

    def column(self, name: str) -> Column:
        """The column of that id."""
        return next(column for column in self.columns if column.id == name)

    def official_columns(self) -> dict[str, Column]:
        """The first official column of each dataset: of most runs, as columns are ordered."""
        columns: dict[str, Column] = {}
        for column in self.columns:
            if column.official:
                columns.setdefault(column.task, column)
        return columns

    def columns_of(self, rows: Iterable[MeasuredRow | PublishedRow]) -> list[Column]:
        """The columns in which one of these rows has a score."""
        ids = {name for row in rows for name in row.cells}
        return [column for column in self.columns if column.id in ids]


def as_json(board: Board) -> str:
    """The board itself; its JSON Schema is board.schema.json in the package."""
    return board.model_dump_json(indent=1)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a board."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Board.model_json_schema(),
    }


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(json_schema(), indent=1) + "\n", encoding="utf-8")
