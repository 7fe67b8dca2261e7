"""RunSpec: everything that decides a result, frozen and hashable; its hash is the run's identity.

What does not change the result (device, processes, folders, logging) is in `Execution` and stays
out of the hash.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Frozen(BaseModel):
    """A value that cannot change, with no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Encoding(Frozen):
    """How an example becomes a sequence; the same in training and inference.

    `max_length` counts everything: soft prompt, text, the longest option. `prompt_type` selects
    the rows of the backbone's own soft prompt and `segment` the segment of the text: 2 and 2 are
    what CPM-Ant was pre-trained with for generation.
    """

    max_length: Annotated[int, Field(ge=8)] = 256
    prompt_type: Annotated[int, Field(ge=0)] = 2
    segment: Annotated[int, Field(ge=0)] = 2


class Recipe(Frozen):
    """Training settings. `batch_size` counts examples per optimiser step over all processes.

    `schedule="noam"` is BMTrain's: lr * min(step / warmup^1.5, step^-0.5), so its peak is
    lr / sqrt(warmup). The other schedules warm up linearly to lr. `patience` counts evaluations
    without improvement of the dev metric; 0 never stops early.
    """

    lr: Positive = 1e-3
    schedule: Literal["noam", "linear", "cosine", "constant"] = "noam"
    warmup: Count = 50
    batch_size: Count = 32
    epochs: Count = 10
    max_steps: Count | None = None
    eval_every: Count = 50
    patience: Annotated[int, Field(ge=0)] = 10
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    clip: Positive = 10.0


class DataSpec(Frozen):
    """Which rows: fingerprints of the split files and what was taken of them."""

    train: str | None
    dev: str | None
    test: str | None
    limit: Count | None = None
    skip_bad_rows: bool = False
    sample: bool = False


class BackboneSpec(Frozen):
    """Which frozen weights: fingerprint of the files; `init="random"` discards the weights."""

    sha256: str
    init: Literal["checkpoint", "random"] = "checkpoint"


class RunSpec(Frozen):
    """One run. Two runs with equal specs are the same run."""

    schema_version: Literal[1] = 1
    task: str
    task_version: int
    template: str
    template_version: int
    template_sha256: str
    metrics: tuple[str, ...]
    data: DataSpec
    backbone: BackboneSpec
    delta: dict[str, Any]
    encoding: Encoding
    recipe: Recipe | None
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    precision: Literal["fp32", "bf16"] = "fp32"

    @model_validator(mode="after")
    def _zero_shot_has_no_recipe(self) -> RunSpec:
        if (self.delta.get("delta_type") == "none") != (self.recipe is None):
            raise ValueError("a run has a recipe exactly when it has a delta to train")
        return self

    @property
    def sha256(self) -> str:
        """Hash of the canonical JSON of this spec."""
        said = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(said.encode()).hexdigest()

    @property
    def run_id(self) -> str:
        """Name of the run's folder: readable first, then the hash that identifies it."""
        control = "-random" if self.backbone.init == "random" else ""
        delta = self.delta["delta_type"]
        return f"{self.task}.{delta}{control}.s{self.seed}.{self.sha256[:12]}"


class Execution(Frozen):
    """How a run is carried out; nothing here decides its result.

    `micro_tokens` bounds the tokens of one forward pass; larger batches are accumulated.
    """

    device: str = "auto"
    threads: Annotated[int, Field(ge=0)] = 0
    micro_tokens: Annotated[int, Field(ge=256)] = 8192
