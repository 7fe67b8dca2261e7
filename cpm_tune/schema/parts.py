"""The parts of a record: scores, splits, training, controls, overlap, forgetting, searches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cpm_tune.errors import UserError
from cpm_tune.schema.frozen import NamePart

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SplitName = Annotated[str, Field(pattern=r"^(train|dev|test)$")]
# Bounds that no run reaches: means, squares and ratios of these are finite, whoever wrote them.
Number = Annotated[float, Field(strict=True, ge=-1e100, le=1e100)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[int, Field(ge=1, lt=2**63)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ScoreRecord(Part):
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


class EarlierScore(Part):
    """A score that was replaced when it was recomputed from the predictions."""

    split: str
    metric: str
    score: ScoreRecord
    replaced_at: str


class SplitRecord(Part):
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


class BackboneRecord(Part):
    """The frozen model."""

    name: str
    path: str
    sha256: Sha256
    trained: bool
    n_parameters: Count


class DeltaRecord(Part):
    """What was trained."""

    name: str
    n_trainable: Count
    bytes: Count
    sha256: Sha256 | None


class CurvePoint(Part):
    """An evaluation on dev during training; `loss` is the mean training loss since the last one."""

    step: Count
    loss: Number
    dev: Number


class TrainingRecord(Part):
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


class EnvironmentRecord(Part):
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


class ControlRecord(Part):
    """The score of a control on the same test rows. Its note describes a majority or shortcut
    control, and says if a shortcut was scored on a part of the rows."""

    value: Number
    low: Number
    high: Number
    run_id: str | None = None
    note: str = ""


class OverlapRecord(Part):
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


class ForgettingRecord(Part):
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


class TrialRecord(Part):
    """One trial of a search: its settings as texts, the best dev score and the steps it trained.
    `repeats` is the earlier trial with the same settings, whose result was taken."""

    state: Literal["finished", "pruned", "failed"]
    settings: dict[str, str]
    dev: Number | None = None
    steps: Count = 0
    seconds: Number = 0
    repeats: Positive | None = None
    error: str = ""


class SearchRecord(Part):
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
