"""RunSpec: everything that decides a result, frozen and hashable; its hash is the run's identity.

What does not change the result (device, processes, folders, logging) is in `execution.Execution`,
and not in the hash.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from cpm_tune.common.sizes import counted
from cpm_tune.schema.execution import Execution as Execution
from cpm_tune.schema.frozen import Extended, Frozen, Identified
from cpm_tune.schema.frozen import NamePart as NamePart
from cpm_tune.schema.frozen import TaskName as TaskName
from cpm_tune.schema.lr_schedule import SCHEDULES
from cpm_tune.schema.options import (
    Beams,
    Count,
    DeltaScale,
    LengthPenalty,
    MaxNewTokens,
    MinNewTokens,
    Natural,
    Precision,
    Quantize,
    RepetitionPenalty,
    RepetitionWindow,
    Scoring,
    Seed,
    ShotChoice,
    Temperature,
    TopK,
    TopP,
)

if TYPE_CHECKING:
    ScheduleName = str
else:
    ScheduleName = Literal[tuple(SCHEDULES)]
Positive = Annotated[float, Field(gt=0)]
FAMILY = "ant"  # of every spec that names none


class Encoding(Extended):
    """How an example becomes a sequence; the same in training and inference.

    `max_length` counts everything: soft prompt, text, the longest option. `prompt_type` selects
    the rows of CPM-Ant's own soft prompt and `segment` the segment of the text: 2 and 2 are what
    CPM-Ant was pre-trained with for generation. `target` is where an encoder-decoder's answers
    begin: answer (at once), sentinel (after the first sentinel), blank (so, and that sentinel ends
    the context, too); by default sentinel for CPM-2, answer for others. Each is None for families
    that do not have it.
    """

    OMITTED = {"prompt_type": None, "segment": None, "target": None}

    max_length: Annotated[int, Field(ge=8, le=2**20)] = 256
    prompt_type: Natural | None = 2
    segment: Natural | None = 2
    target: Literal["answer", "sentinel", "blank"] | None = None


class Recipe(Extended):
    """Training settings. `batch_size` counts examples per optimiser step over all processes.

    `schedule` is one of `lr_schedule.SCHEDULES`: "noam" is BMTrain's, lr * min(step / warmup^1.5,
    step^-0.5), so its peak is lr / sqrt(warmup); the others warm up linearly to lr. `patience`
    counts evaluations without improvement of the dev metric; 0 never stops early. Evaluations
    during training use the first `dev_rows` rows of dev (all of them if None). `warmup_share`, if
    it is not None, is the warm-up as a share of all steps, instead of `warmup`; `rows_share` the
    share of the rows of train that is used, from the first one on. `rows` is the number of rows of
    train that are used, drawn by the seed (`data.drawn`); None: all.
    """

    OMITTED = {"warmup_share": None, "rows_share": 1.0, "rows": None}

    lr: Positive = 1e-3
    schedule: ScheduleName = "noam"
    warmup: Count = 50
    batch_size: Count = 32
    epochs: Count = 10
    max_steps: Count | None = None
    eval_every: Count = 50
    patience: Natural = 10
    dev_rows: Count | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    clip: Positive = 10.0
    warmup_share: Annotated[float | None, Field(gt=0, le=1)] = None
    rows_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    rows: Count | None = None

    @model_validator(mode="after")
    def _one_number_of_rows(self) -> Recipe:
        if self.rows is not None and self.rows_share != 1:
            raise ValueError("rows and rows_share both choose training rows; keep one of the two")
        return self

    def rows_used(self, n: int) -> int:
        """The number of training rows that are used of `n`."""
        return max(1, int(self.rows_share * n)) if n else 0

    def learning_rate(self, step: int, total: int) -> float:
        """The learning rate of a step (from 1) of `total`."""
        share = self.warmup_share
        warmup = self.warmup if share is None else max(1, round(share * total))
        return SCHEDULES[self.schedule](self.lr, step, warmup, total)


_SAMPLING = ("temperature", "top_k", "top_p", "seed")


class Decoding(Frozen):
    """Greedy (`beams=1`), beam search, or sampling (`sample`).

    `max_new_tokens` counts the stop token; stop tokens are not taken before `min_new_tokens`
    others. `n_best` of the beams are returned. `length_penalty` p: hypotheses rank by
    log-probability / tokens^p (0: by log-probability). `repetition_penalty` (CTRL, Keskar et al.
    2019) divides the positive logits and multiplies the negative ones of the last
    `repetition_window` generated tokens (0: of all). Sampling draws at `temperature` from the
    `top_k` most probable tokens (0: all) and of these from the fewest that hold `top_p` of the
    probability.
    """

    max_new_tokens: MaxNewTokens = 50
    min_new_tokens: MinNewTokens = 0
    beams: Beams = 1
    n_best: Count = 1
    length_penalty: LengthPenalty = 0.0
    repetition_penalty: RepetitionPenalty = 1.0
    repetition_window: RepetitionWindow = 0
    sample: bool = False
    temperature: Temperature = 1.0
    top_k: TopK = 0
    top_p: TopP = 1.0
    seed: Seed = 0

    @model_validator(mode="after")
    def _settings_agree(self) -> Decoding:
        """Reject settings that conflict or have no effect: equal runs have equal specs."""
        if self.n_best > self.beams:
            raise ValueError(f"n_best is {self.n_best}, but only {counted(self.beams, 'beam')}")
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens is {self.min_new_tokens}, more than max_new_tokens "
                f"({self.max_new_tokens})"
            )
        if self.sample and self.beams > 1:
            raise ValueError(f"sampling has one beam, but beams is {self.beams}")
        idle = [n for n in _SAMPLING if getattr(self, n) != Decoding.model_fields[n].default]
        if idle and not self.sample:
            raise ValueError(f"{idle[0]} has no effect without sample")
        if self.repetition_window and self.repetition_penalty == 1:
            raise ValueError("repetition_window has no effect without repetition_penalty")
        return self


class DataSpec(Extended):
    """Which rows: fingerprints of the split files and what was taken of them. `fold` is the number
    of the files of train and dev among those of a protocol with several, `folds` the fingerprint of
    all of these."""

    OMITTED = {"fold": None, "folds": None}

    train: str | None
    dev: str | None
    test: str | None
    limit: Count | None = None
    skip_bad_rows: bool = False
    sample: bool = False
    fold: Natural | None = None
    folds: str | None = None

    @model_validator(mode="after")
    def _fold_of_folds(self) -> DataSpec:
        if (self.fold is None) != (self.folds is None):
            raise ValueError("fold and folds belong together")
        return self

    @property
    def seen(self) -> tuple[str | None, str | None]:
        """What runs with comparable scores share of train and dev: the files, or those of all
        folds."""
        return (self.train, self.dev) if self.folds is None else (self.folds, self.folds)


class BackboneSpec(Extended):
    """Which frozen weights: fingerprint of the files; `init="random"` discards the weights;
    `quantize` stores them in 8 bits. `family` names the kind of model, `tokenizer` the fingerprint
    of its tokenizer, unless the files' own fingerprint covers that."""

    OMITTED = {"quantize": None, "family": FAMILY, "tokenizer": None}

    sha256: str
    init: Literal["checkpoint", "random"] = "checkpoint"
    quantize: Quantize | None = None
    family: NamePart = FAMILY
    tokenizer: str | None = None


class SearchSpec(Frozen):
    """How a run's settings were found on dev: `space` has the values of each setting that was
    searched, as `search.space` writes them; `trials` and `seconds` are the budget of the search.
    """

    space: dict[str, str]
    trials: Count
    seconds: Count | None = None
    sampler: Literal["tpe"] = "tpe"
    pruner: Literal["median"] | None = "median"
    seed: Seed = 1

    def __str__(self) -> str:
        limit = "" if self.seconds is None else f" in {self.seconds} s"
        pruned = "" if self.pruner else " none pruned"
        space = " ".join(f"{key}={values}" for key, values in self.space.items())
        text = f"{counted(self.trials, 'trial')}{limit}{pruned} seed {self.seed}: {space}"
        return text.replace(",", "|")  # selectors of rows have commas between settings


class RunSpec(Identified):
    """One run. Two runs with equal specs are the same run.

    `scoring` is None if options are scored by the template's own rule. `shots` counts the answered
    examples of train before each prompt, chosen by `shot_choice`; `chat_template` is the
    fingerprint of the chat template around it. `delta_scale` is the factor of the trained delta in
    predictions. `search` is how the settings were found, if they were searched for.
    """

    OMITTED = {
        **{"scoring": None, "shots": 0, "shot_choice": "balanced", "chat_template": None},
        **{"delta_scale": 1.0, "search": None},
    }

    schema_version: Literal[1] = 1
    task: TaskName
    task_version: int
    template: str
    template_version: int
    template_sha256: str
    scoring: Scoring | None = None
    shots: Natural = 0
    shot_choice: ShotChoice = "balanced"
    chat_template: str | None = None
    search: SearchSpec | None = None
    metrics: tuple[str, ...]
    data: DataSpec
    backbone: BackboneSpec
    delta: dict[str, Any]
    delta_scale: DeltaScale = 1.0
    encoding: Encoding
    decoding: Decoding | None = None
    recipe: Recipe | None
    seed: Seed
    precision: Precision = "fp32"

    @field_validator("encoding")
    @classmethod
    def _omitted_by_other_families(cls, encoding: Encoding, info: ValidationInfo) -> Encoding:
        """Read back what was left out: the settings of CPM-Ant, in the spec of another family."""
        backbone = info.data.get("backbone")
        if backbone is None or backbone.family == FAMILY:
            return encoding
        absent = {name for name in Encoding.OMITTED if name not in encoding.model_fields_set}
        return encoding.model_copy(update=dict.fromkeys(absent)) if absent else encoding

    @model_validator(mode="after")
    def _encoding_fits(self) -> RunSpec:
        names = ("prompt_type", "segment")
        absent = [name for name in names if getattr(self.encoding, name) is None]
        if absent and self.backbone.family == FAMILY:
            raise ValueError(f"encode.{absent[0]} is none, expected a number for CPM-Ant")
        return self

    @model_validator(mode="after")
    def _delta_fits(self) -> RunSpec:
        kind = self.delta.get("delta_type")
        if not (isinstance(kind, str) and re.fullmatch(r"\w{1,40}", kind)):
            raise ValueError(f"delta_type is {kind!r:.60}, expected the name of a delta method")
        if (kind == "none") != (self.recipe is None):
            raise ValueError("a run has a recipe exactly when it has a delta to train")
        return self

    @property
    def training_sha256(self) -> str:
        """Hash of what decides the training: not how its settings were found."""
        return self.model_copy(update={"search": None}).sha256

    @property
    def random_seed(self) -> int | None:
        """The seed of the backbone's random weights; None if they are the checkpoint's."""
        return self.seed if self.backbone.init == "random" else None

    @property
    def weights(self) -> str:
        """The precision, and the backbone's quantisation if any: fp32, bf16+int8."""
        return "+".join(filter(None, (self.precision, self.backbone.quantize)))

    @property
    def run_id(self) -> str:
        """Name of the run's folder: readable first, then the hash that identifies it."""
        control = "-random" if self.backbone.init == "random" else ""
        delta = self.delta["delta_type"]
        return f"{self.task}.{delta}{control}.s{self.seed}.{self.sha256[:12]}"


class SystemSpec(Identified):
    """The predictions of a system outside this package. Equal specs are the same predictions.

    `seed` tells several runs of one system apart; `data` names the one split that was scored.
    """

    schema_version: Literal[1] = 1
    system: Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^\s](.*[^\s])?$")]
    task: TaskName
    task_version: int
    metrics: tuple[str, ...]
    data: DataSpec
    predictions_sha256: str
    seed: Seed = 1

    @property
    def run_id(self) -> str:
        """Name of the record's folder: readable first, then the hash that identifies it."""
        name = re.sub(r"[^\w-]+", "-", self.system).strip("-") or "system"
        return f"{self.task}.{name[:40]}.s{self.seed}.{self.sha256[:12]}"


def flattened(spec: RunSpec | SystemSpec) -> dict[str, Any]:
    """Return every setting of a spec by its dotted key: {"task": "lcqmc", "recipe.lr": 0.001, …}.

    Values are scalars or lists, as in run.json; a part that is absent (no recipe) is one None.
    """

    def flat(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        for key, value in values.items():
            nested = isinstance(value, dict)
            settings |= flat(f"{prefix}{key}.", value) if nested else {prefix + key: value}
        return settings

    return flat("", spec.model_dump(mode="json"))
