"""The record of a run (run.json): a typed, versioned schema, validated on read, written atomically.

The predictions of a system outside this package have another kind of record in a file of the same
name: it has scores, but neither backbone nor delta. `python -m cpm_tune.schema.record` writes the
JSON Schema that ships with the package.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from cpm_tune.common.faults import faults
from cpm_tune.common.folders import RECORD
from cpm_tune.common.reading import read_regular
from cpm_tune.common.writing import write_atomically
from cpm_tune.errors import UserError
from cpm_tune.schema.options import Scoring
from cpm_tune.schema.spec import Execution, NamePart, RunSpec, SystemSpec

SCHEMA = Path(__file__).with_name("run.schema.json")
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SplitName = Annotated[str, Field(pattern=r"^(train|dev|test)$")]
# Bounds that no run reaches: means, squares and ratios of these are finite, whoever wrote them.
Number = Annotated[float, Field(strict=True, ge=-1e100, le=1e100)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[int, Field(ge=1, lt=2**63)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ScoreRecord(_Part):
    """A metric on a split; `low` and `high` are the 95% interval that the signature names."""

    value: Number
    low: Number
    high: Number
    n: Positive
    signature: str
    higher_is_better: bool


def shown_scores(scores: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Scores by metric, as the values of events: value, low, high and n."""
    parts = ("value", "low", "high", "n")
    return {name: {part: getattr(s, part) for part in parts} for name, s in scores.items()}


class EarlierScore(_Part):
    """A score that was replaced when it was recomputed from the predictions."""

    split: str
    metric: str
    score: ScoreRecord
    replaced_at: str


class SplitRecord(_Part):
    """What was read of a split: `n` rows in use, `n_truncated` of them cut to fit (None if not all
    were encoded), `n_unparsed` of them with a generated text that could not be read or, by
    argmax-vocabulary, without a prediction. `n_shots_dropped`: of all rows, the shots for which
    there was no room. `labelled` is False for a test split without gold
    answers, which has predictions but no score. `edition` names the edition of the dataset, and by
    what it is known, if it is."""

    path: str
    sha256: Sha256
    n: Count
    n_skipped: Count
    n_truncated: Count | None
    n_unparsed: Count = 0
    n_shots_dropped: Count = 0
    labelled: bool = True
    edition: str = ""


class BackboneRecord(_Part):
    """The frozen model."""

    name: str
    path: str
    sha256: Sha256
    trained: bool
    n_parameters: Count


class DeltaRecord(_Part):
    """What was trained."""

    name: str
    n_trainable: Count
    bytes: Count
    sha256: Sha256 | None


class CurvePoint(_Part):
    """An evaluation on dev during training; `loss` is the mean training loss since the last one."""

    step: Count
    loss: Number
    dev: Number


class TrainingRecord(_Part):
    """How training went. `samples_per_second` excludes evaluation; `skipped_steps` overflowed in
    fp16 and changed nothing; `micro_tokens`: what forward passes were reduced to when memory ran
    out (run.auto_batch)."""

    steps: Count
    best_step: Count
    stopped_early: bool
    skipped_steps: Count = 0
    micro_tokens: Count | None = None
    curve: list[CurvePoint]
    samples_per_second: Number
    seconds: Number

    @property
    def best_dev(self) -> float:
        """The dev metric at the best step; nan if the curve lacks it."""
        return next((point.dev for point in self.curve if point.step == self.best_step), math.nan)


class EnvironmentRecord(_Part):
    """Where the run was made; nothing here is part of its identity. `gpu`: name, capability,
    driver, CUDA and cuDNN; empty on a CPU. `energy_joules`: of the machine's processors and of the
    GPU in `seconds`, other work included; None if the system does not count it."""

    packages: dict[str, str]
    python: str
    git_sha: str | None
    git_dirty: bool | None
    device: str
    engine: str
    world_size: Positive
    threads: Count
    deterministic: bool
    peak_memory_bytes: Count
    seconds: Number
    finished_at: str
    gpu: dict[str, str] = {}
    energy_joules: Number | None = None


class ControlRecord(_Part):
    """The score of a control on the same test rows. Its note describes a majority or shortcut
    control, and says if a shortcut was scored on a part of the rows."""

    value: Number
    low: Number
    high: Number
    run_id: str | None = None
    note: str = ""


class OverlapRecord(_Part):
    """Rows of test that another split has as well, of `n` that were compared with `n_other`. The
    rows of `exact` are among those of `normalised` (case, width, punctuation and the order of texts
    do not count), and these among those of `near` (MinHash of at most `n_near` rows a split,
    Jaccard index of three-character shingles from 0.8). `shared` are others with one of several
    texts in common. `among` and `without` are the ranking metric on all these rows and on the
    rest; None if there are none, or if it is no value of predictions. `rows`: the numbers of the
    former, as ranges ("0-3,7"); "" in records of earlier versions."""

    n: Count
    n_other: Count
    n_near: Count
    exact: Count
    normalised: Count
    near: Count
    shared: Count
    among: ScoreRecord | None = None
    without: ScoreRecord | None = None
    rows: Annotated[str, Field(pattern=r"^(\d{1,12}(-\d{1,12})?(,\d{1,12}(-\d{1,12})?)*)?$")] = ""

    def parts(self, n: int) -> dict[str, list[int]]:
        """The numbers of the rows that `among` and `without` are of, of `n`; none if they are not
        recorded. Raises UserError if they are not rows of a split of that size, in order."""
        among: list[int] = []
        for part in self.rows.split(",") if self.rows else ():
            first, _, last = part.partition("-")
            start, end = int(first), int(last or first) + 1
            if not (among[-1] if among else -1) < start < end <= n:
                raise UserError(f"overlap.rows has {part}, expected rows in order, below {n:,}.")
            among += range(start, end)
        if not among:
            return {}
        known = set(among)
        return {"among": among, "without": [i for i in range(n) if i not in known]}

    @staticmethod
    def ranges(numbers: Iterable[int]) -> str:
        """Numbers in order as `rows` has them."""
        parts = []
        for _, group in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
            run = [number for _, number in group]
            parts.append(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}")
        return ",".join(parts)


class ForgettingRecord(_Part):
    """The loss on the plain texts of one source, in nats per character of what was predicted:
    `characters` of `texts`, `tokens` in the backbone's vocabulary. `bare` is that of the backbone
    alone, `tuned` that with the delta; `low` and `high` are the 95% interval of their `difference`,
    which is positive if the delta made it worse (a paired percentile bootstrap over texts); None if
    there is one text, of which no interval says how others differ. `sha256`: of the texts."""

    texts: Positive
    characters: Positive
    tokens: Positive
    sha256: Sha256
    bare: Number
    tuned: Number
    difference: Number
    low: Number | None = None
    high: Number | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_interval(cls, values: Any) -> Any:
        """Earlier versions wrote an interval of no width for one text."""
        if isinstance(values, dict) and values.get("texts") == 1:
            return {**values, "low": None, "high": None}
        return values

    @property
    def interval(self) -> str:
        """The interval as texts have it."""
        if self.low is None or self.high is None:
            return "no interval: one text"
        return f"[{self.low:+.4f}, {self.high:+.4f}]"


class TrialRecord(_Part):
    """One trial of a search: its settings as texts, the best dev score and the steps it trained.
    `repeats` is the earlier trial with the same settings, whose result was taken."""

    state: Literal["finished", "pruned", "failed"]
    settings: dict[str, str]
    dev: Number | None = None
    steps: Count = 0
    seconds: Number = 0
    repeats: Positive | None = None
    error: str = ""


class SearchRecord(_Part):
    """How a run's settings were found: the trials in order, the number (from 1) of the one that was
    `chosen` by `metric` on dev alone, and the wall time of all. `study` is the name of their folder
    in .search of the results folder, `earlier` the runs of that study with another budget that had
    been scored on test before."""

    study: NamePart
    metric: str
    chosen: Positive
    seconds: Number
    trials: list[TrialRecord]
    earlier: list[NamePart] = []


# Controls that need no model; `controls` has those that a task can have.
SHORTCUTS = ("length", "bag", "option-alone", "overlap", "nearest")


class _Record(_Part):
    """A record of any earlier schema is read as one of this: what schema 1 lacks has defaults."""

    schema_version: Literal[2] = 2

    @model_validator(mode="before")
    @classmethod
    def _from_schema_1(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("schema_version") != 1:
            return values
        spec = values.get("spec")
        generates = isinstance(spec, dict) and spec.get("decoding") is not None
        rule = {"scoring": "generation"} if generates else {}
        return {**values, "schema_version": 2, **rule}


class RunRecord(_Record):
    """One run. `scores` maps split, then metric; `ranks_by` names the metric that ranks.

    `scoring` is how answers were chosen; None in records of schema 1 whose template decided.
    `numbers` is `cpm_tune.version.NUMBERS` of the package that computed the run. `forgetting` maps
    sources of plain text to the losses on them.
    """

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


class SystemRecord(_Record):
    """The scored predictions of a system outside this package: its name, data and scores. `split`
    is the only split, and it is labelled."""

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
        raise UserError(
            f"{path}: not readable ({error.strerror}); restore the file, or remove its folder."
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
