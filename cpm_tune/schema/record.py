"""The record of a run (run.json): a typed, versioned schema, validated on read, written atomically.

The predictions of a system outside this package have another kind of record in a file of the same
name: it has scores, but neither backbone nor delta. `python -m cpm_tune.schema.record` writes the
JSON Schema that ships with the package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from cpm_tune.common.faults import faults
from cpm_tune.common.folders import RECORD
from cpm_tune.common.reading import read_regular
from cpm_tune.common.writing import write_atomically
from cpm_tune.errors import UserError, absent
from cpm_tune.schema.frozen import NamePart
from cpm_tune.schema.options import Scoring
from cpm_tune.schema.parts import (
    BackboneRecord,
    ControlRecord,
    CurvePoint,
    DeltaRecord,
    EarlierScore,
    EnvironmentRecord,
    ForgettingRecord,
    OverlapRecord,
    Part,
    ScoreRecord,
    SearchRecord,
    Sha256,
    SplitName,
    SplitRecord,
    TrainingRecord,
    TrialRecord,
    shown_scores,
)
from cpm_tune.schema.spec import Execution, RunSpec, SystemSpec

__all__ = [
    "SHORTCUTS",
    "AnyRecord",
    "BackboneRecord",
    "ControlRecord",
    "CurvePoint",
    "DeltaRecord",
    "EarlierScore",
    "EnvironmentRecord",
    "ForgettingRecord",
    "OverlapRecord",
    "RunRecord",
    "ScoreRecord",
    "SearchRecord",
    "SplitRecord",
    "SystemRecord",
    "TrainingRecord",
    "TrialRecord",
    "finished_record",
    "json_schema",
    "read_any_record",
    "read_record",
    "shown_scores",
    "write_record",
]
SCHEMA = Path(__file__).with_name("run.schema.json")

# Controls that need no model; `controls` has those that a task can have.
SHORTCUTS = ("length", "bag", "option-alone", "overlap", "nearest")


# Schema 1 is read as 2: what it lacks has defaults.
SchemaVersion = Annotated[Literal[2], BeforeValidator(lambda found: 2 if found == 1 else found)]


class RunRecord(Part):
    """One run. `scores` maps split, then metric; `ranks_by` names the metric that ranks.

    `scoring` is how answers were chosen; None in records of schema 1 whose template decided.
    `numbers` is `cpm_tune.version.NUMBERS` of the package that computed the run. `forgetting` maps
    sources of plain text to the losses on them.
    """

    schema_version: SchemaVersion = 2
    status: Literal["running", "finished", "failed"]
    run_id: NamePart
    spec_sha256: Sha256
    spec: RunSpec
    execution: Execution
    ranks_by: str
    scoring: Scoring | Literal["generation"] | None = None
    numbers: Annotated[int, Field(ge=1, lt=2**31)] = 1
    comparable: bool
    note: str = ""
    data: dict[SplitName, SplitRecord] = {}
    backbone: BackboneRecord
    delta: DeltaRecord
    scores: dict[SplitName, dict[str, ScoreRecord]] = {}
    controls: dict[str, ControlRecord] = {}
    overlap: dict[SplitName, OverlapRecord] = {}
    forgetting: dict[str, ForgettingRecord] = {}
    warnings: list[str] = []
    search: SearchRecord | None = None
    training: TrainingRecord | None = None
    environment: EnvironmentRecord | None = None
    predictions: dict[str, Sha256] = {}
    earlier_scores: list[EarlierScore] = []
    error: str | None = None

    @model_validator(mode="after")
    def _scoring_of_schema_1(self) -> RunRecord:
        if self.scoring is None and self.spec.decoding is not None:
            self.scoring = "generation"
        return self

    @property
    def name(self) -> str:
        """The name that readers see: the delta and the backbone."""
        control = " (random control)" if self.spec.backbone.init == "random" else ""
        return f"{self.delta.name} on {self.backbone.name}{control}"

    @property
    def labelled(self) -> bool:
        """Whether the test split has gold answers, and so the run a test score."""
        return "test" not in self.data or self.data["test"].labelled

    @property
    def test(self) -> ScoreRecord:
        """The ranking metric on the test split (finished runs with a labelled one only)."""
        return self.scores["test"][self.ranks_by]

    @property
    def best_shortcut(self) -> tuple[str, ControlRecord] | None:
        """The shortcut control with the best score, and its name; the first of equal ones."""
        known = [(name, self.controls[name]) for name in SHORTCUTS if name in self.controls]
        if not known or not self.labelled:
            return None
        sign = 1 if self.test.higher_is_better else -1
        return max(known, key=lambda each: sign * each[1].value)

    @property
    def unbeaten_shortcut(self) -> tuple[str, ControlRecord] | None:
        """The best shortcut, if the test score is not above it by more than its 95% interval."""
        best = self.best_shortcut
        if best is None:
            return None
        test, value = self.test, best[1].value
        beaten = test.low > value if test.higher_is_better else test.high < value
        return None if beaten else best


class SystemRecord(Part):
    """The scored predictions of a system outside this package: its name, data and scores. `split`
    is the only split, and it is labelled."""

    schema_version: SchemaVersion = 2
    kind: Literal["system"] = "system"
    status: Literal["finished"] = "finished"
    run_id: NamePart
    spec_sha256: Sha256
    spec: SystemSpec
    ranks_by: str
    comparable: bool
    note: str = ""
    split: Literal["dev", "test"]
    source: str  # the file of the predictions and its form
    data: dict[SplitName, SplitRecord]
    scores: dict[SplitName, dict[str, ScoreRecord]]
    warnings: list[str] = []
    predictions: dict[str, Sha256]
    earlier_scores: list[EarlierScore] = []
    packages: dict[str, str]
    scored_at: str

    @property
    def name(self) -> str:
        """The name that readers see."""
        return self.spec.system

    @property
    def test(self) -> ScoreRecord:
        """The ranking metric on the test split, if that is the split."""
        return self.scores["test"][self.ranks_by]


AnyRecord = RunRecord | SystemRecord


def write_record(folder: Path, record: AnyRecord) -> None:
    """Write run.json atomically."""
    write_atomically(folder / RECORD, record.model_dump_json(indent=1) + "\n")


def read_record(path: Path) -> RunRecord:
    """Read and validate the run.json of a run of this package.

    Raises UserError naming the file and the first fault.
    """
    record = read_any_record(path)
    if isinstance(record, SystemRecord):
        raise UserError(
            f"{path}: the scored predictions of '{record.name}', expected a run of this package."
        )
    return record


def read_any_record(path: Path) -> AnyRecord:
    """As `read_record`, for a system's record as well."""
    try:
        raw = read_regular(path)
        record = (SystemRecord if _is_system(raw) else RunRecord).model_validate_json(raw)
    except ValidationError as error:
        raise UserError(
            f"{path}: not a valid run record: {faults(error)[0]}; restore the file, or run it "
            "again with --overwrite."
        ) from error
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) and not path.is_symlink():
            raise no_run(path.parent) from error
        raise UserError(
            f"{path}: not readable ({error.strerror}); restore the file, or run it again with "
            "--overwrite."
        ) from error
    if record.spec.sha256 != record.spec_sha256:
        raise UserError(f"{path}: spec_sha256 does not belong to the spec; the file was changed.")
    split = record.split if isinstance(record, SystemRecord) else "test"
    if (
        record.status == "finished"
        and (isinstance(record, SystemRecord) or record.labelled)
        and record.ranks_by not in record.scores.get(split, {})
    ):
        raise UserError(f"{path}: a finished run without its {split} {record.ranks_by}.")
    return record


def no_run(folder: Path) -> UserError:
    """That a folder is not a run's."""
    if folder.is_dir():
        return UserError(f"{folder}: not a run's folder ({RECORD} is missing).")
    return UserError(f"{folder}: {absent(folder, 'the folder of a run')}.")


def _is_system(raw: bytes) -> bool:
    if b'"kind"' not in raw:  # do not parse all of 10,000 records twice
        return False
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and record.get("kind") == "system"


def finished_record(run: Path) -> RunRecord:
    """The record of a run; raise UserError if there is none or the run is not finished."""
    record = read_record(run / RECORD)
    if record.status != "finished":
        raise UserError(f"{run}: the run is {record.status}, expected a finished one.")
    return record


def json_schema() -> dict[str, Any]:
    """The JSON Schema of run.json."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "run.json",
        **TypeAdapter(AnyRecord).json_schema(),
    }


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(json_schema(), indent=1) + "\n", encoding="utf-8")
