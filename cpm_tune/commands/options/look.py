"""Options of the commands that only look: list, show, doctor, estimate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cpm_tune.common.option import Option
from cpm_tune.errors import UserError
from cpm_tune.schema.options import (
    BUNDLED,
    BackboneName,
    ChatTemplate,
    Count,
    Data,
    DeltaName,
    EngineOptions,
    Include,
    Natural,
    Precision,
    Quantize,
    ScoringRule,
    ShotChoice,
    ShotCount,
    Split,
    TaskName,
    TemplateName,
    Zero,
)


@dataclass(frozen=True, kw_only=True)
class List:
    """List tasks, deltas or backbones.

    examples:
      tune.py list tasks
      tune.py list deltas
      tune.py list backbones
    """

    what: Annotated[
        Literal["tasks", "deltas", "backbones"], Option("what to list", positional=True)
    ]
    data: Annotated[Data, Option("look for data here, in one folder per task")] = None
    include: Include = ()


@dataclass(frozen=True, kw_only=True)
class Show:
    """Print a task's card, and rows as the backbone sees them.

    examples:
      tune.py show lcqmc
      tune.py show lcqmc --template cpm-2 --rows 1
      tune.py show lcqmc --text
    """

    task: Annotated[TaskName, Option(metavar="TASK", positional=True)]
    template: TemplateName = None
    scoring: ScoringRule = None
    chat_template: ChatTemplate = None
    shots: ShotCount = 0
    shot_choice: ShotChoice = "balanced"
    data: Data = None
    split: Annotated[Split, Option("split to show")] = "dev"
    rows: Annotated[Natural, Option("number of rows")] = 2
    backbone: BackboneName = BUNDLED
    max_length: Annotated[
        int | None,
        Option("longest sequence in tokens", "N", 8, default="the task's encode.max_length"),
    ] = None
    overlap: Annotated[bool, Option("count rows of test that other splits have as well")] = False
    text: Annotated[
        bool,
        Option("print prompts only, without tokens: fast", not_with=("shots", "chat_template")),
    ] = False
    include: Include = ()


@dataclass(frozen=True, kw_only=True)
class DataCard:
    """Print a data set's card: sizes, lengths, answers, repeated rows, rows that splits share, what
    shortcuts get without a model, truncation.

    examples:
      tune.py data tasks/sample/lcqmc
      tune.py data DIR --task lcqmc --max-length 64 --out card.html
    """

    folder: Annotated[
        Path,
        Option("folder of the data set, or with one such folder per task", "DIR", positional=True),
    ]
    task: Annotated[
        str | None, Option("task whose files these are", "NAME", default="the folder's name")
    ] = None
    template: TemplateName = None
    backbone: BackboneName = BUNDLED
    max_length: Annotated[
        int | None,
        Option("longest sequence in tokens", "N", 8, default="the task's encode.max_length"),
    ] = None
    corpus: Annotated[
        Path | None, Option("prepared pre-training corpus to look for the texts in", "DIR")
    ] = None
    out: Annotated[
        Path | None, Option("file to write (.html, .json or .txt) instead of printing", "FILE")
    ] = None
    skip_bad_rows: Annotated[bool, Option("skip bad rows and report how many")] = False
    include: Include = ()


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Check this machine: what works, what does not, how to fix it."""

    backbone: Annotated[
        str | None,
        Option("print what this backbone can do instead, from its files without weights", "DIR"),
    ] = None
    data: Annotated[Path | None, Option("check the data folders in this folder", "DIR")] = None
    samples: Annotated[bool, Option("print one line per task with sample data")] = False


@dataclass(frozen=True, kw_only=True)
class Completion:
    """Print a script that completes commands, options and names in a shell.

    examples:
      tune.py completion bash
      tune.py completion zsh
      tune.py completion fish
    """

    shell: Annotated[Literal["bash", "zsh", "fish"], Option("the shell", positional=True)]


@dataclass(frozen=True, kw_only=True)
class Schema:
    """Print a JSON Schema for editors: of --config files (of tune, of search), or of suite files.

    examples:
      tune.py schema config
      tune.py schema search
      tune.py schema suite
    """

    of: Annotated[Literal["config", "search", "suite"], Option("kind of file", positional=True)]


@dataclass(frozen=True, kw_only=True)
class Estimate(EngineOptions):
    """Print the memory that tuning needs in each process, by part; no weights are needed.

    examples:
      tune.py estimate --backbone cpm-ant-10b --delta lora --engine bmtrain --nproc 8
      tune.py estimate --backbone cpm-ant-10b --delta lora --shard --nproc 8 --checkpointing
      tune.py estimate --backbone cpm-ant-1b --delta full --precision fp32
      tune.py estimate --backbone cpm-ant-tiny --device cpu --batch-size 8 --length 128
    """

    backbone: Annotated[
        BackboneName, Option("cpm-ant-10b, -7b, -3b, -1b, -300m (shapes only), or a folder")
    ] = "cpm-ant-10b"
    delta: DeltaName = "lora"
    precision: Precision = "bf16"
    quantize: Quantize | None = None
    zero: Zero = 3
    device: Annotated[Literal["cuda", "cpu"], Option("kind of device")] = "cuda"
    nproc: Annotated[Count, Option("processes on all machines")] = 1
    batch_size: Annotated[Count, Option("examples per step, over all processes")] = 32
    length: Annotated[Count, Option("tokens per sequence", least=8)] = 256
    sequences: Annotated[Count, Option("sequences per example, one for each option")] = 1
    answer_tokens: Annotated[
        Count,
        Option(
            "answer tokens per example that are trained and generated; 0: options only", least=0
        ),
    ] = 0
    micro_tokens: Annotated[Count, Option("most tokens per forward pass", least=256)] = 8192

    def __post_init__(self) -> None:
        if self.shard and not self.offload and self.nproc == 1:
            raise UserError("--shard needs several processes; add --nproc N.")
