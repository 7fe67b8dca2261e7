"""Options that several commands, files and models share, each declared once. Imports nothing heavy.

A type such as `Precision` is what a field may be; a class such as `TrialOptions` is a group of
fields that the command line, --config files, bench's suites and `api.tune` take alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from cpm_tune.common.option import Option
from cpm_tune.errors import UserError

BUNDLED = "cpm-ant-tiny"
MOST_SEED = 2**32 - 1
MOST = 2**31 - 1  # of every other whole number: no tensor is larger in any direction

# --- values ---

Precision = Annotated[
    Literal["fp32", "bf16", "fp16"], Option("precision of weights and activations")
]
Quantize = Annotated[
    Literal["int8"],
    Option("8-bit linear weights of the frozen backbone (extra int8); changes results"),
]
Scoring = Literal[
    "yes-logit",
    "verbaliser-sum",
    "verbaliser-mean",
    "verbaliser-relative",
    "argmax-vocabulary",
    "mean-nll",
]
Split = Literal["train", "dev", "test"]
Control = Literal["zero-shot", "random-backbone"]
Engine = Literal["auto", "torch", "bmtrain"]
Zero = Annotated[Literal[2, 3], Option("BMTrain's ZeRO level")]

Seed = Annotated[int, Option(least=0, most=MOST_SEED)]
Limit = Annotated[int, Option("use the first N rows of each split", "N", 1, MOST)]
Count = Annotated[int, Option("", "N", 1, MOST)]
Natural = Annotated[int, Option("", "N", 0, MOST)]

Fold = Annotated[
    int,
    Option(
        "train and dev of a protocol with several: the files train_N and dev_N, as of FewCLUE",
        "N",
        0,
        999,
    ),
]

# --- decoding, of the commands that generate and of the settings decode.* ---

MaxNewTokens = Annotated[Count, Option("most tokens to generate, the stop token included")]
MinNewTokens = Annotated[Natural, Option("fewest tokens before a stop token")]
Beams = Annotated[int, Option("beam search with N beams; 1 is greedy", "N", 1, 1000)]
# A power that float64 can represent.
LengthPenalty = Annotated[
    float, Option("power P: beams rank by log-probability / tokens^P", "P", 0, 50)
]
RepetitionPenalty = Annotated[float, Option("penalty for tokens generated before", "X", 1)]
RepetitionWindow = Annotated[Natural, Option("penalise the last N generated tokens; 0 is all")]
Temperature = Annotated[float, Option("sample at this temperature", "X", 1e-3, 1000)]
TopK = Annotated[Natural, Option("sample from the N most probable tokens; 0 is all")]
TopP = Annotated[
    float, Option("sample from the fewest tokens with total probability P", "P", most=1, above=0)
]

# --- options that many commands have ---

TaskNames = Annotated[
    str,
    Option(
        "task or task group of `list tasks` (cuge-lite, cuge, cpm-2, all), or several separated by "
        "commas",
        "NAME",
    ),
]
TaskName = Annotated[str, Option("task of `list tasks`", "NAME")]
Data = Annotated[
    Path | None,
    Option(
        "folder of official files, or with one such folder per task", "DIR", default="sample data"
    ),
]
Include = Annotated[
    tuple[Path, ...],
    Option("task file, or folder of them: Python that is run, so trust it; repeatable", "PATH"),
]
TemplateName = Annotated[
    str | None, Option("template of the task", "NAME", default="the task's first")
]
RecipeName = Annotated[
    str | None,
    Option(
        "published recipe of the task, with its template and scoring rule",
        "NAME",
        default="the task's own",
    ),
]
ScoringRule = Annotated[
    Scoring | None, Option("rule that scores the options", "RULE", default="the template's own")
]
ShotChoice = Annotated[
    Literal["balanced", "nearest"],
    Option(
        "shots of --shots: balanced over the labels and the same for all rows, or for each row the "
        "nearest in its characters"
    ),
]
ShotCount = Annotated[
    int, Option("answered rows of train before each prompt, drawn by the seed", "K", 0, 1000)
]
ChatTemplate = Annotated[
    str | None,
    Option(
        "chat template of a causal model around each prompt: own (the checkpoint's) or a Jinja "
        "file",
        "own|FILE",
        default="none",
    ),
]
BackboneName = Annotated[str, Option("name or folder of a backbone, or hub:OWNER/NAME", "NAME|DIR")]
DeltaName = Annotated[str, Option("delta of `list deltas`, or a JSON file", "NAME|FILE")]
DeltaScale = Annotated[
    float,
    Option("multiply the delta by this, back towards the bare backbone (lora, full)", "X", 0, 1),
]
MemoryLimit = Annotated[
    str | None,
    Option(
        "maximum memory for the backbone's weights, such as 4GB; without training only",
        "SIZE",
    ),
]
Results = Annotated[Path, Option("results folder", "DIR")]
ResultsArgument = Annotated[Results, Option(metavar="RESULTS", positional=True)]
Controls = Annotated[
    tuple[Literal[Control, "none"], ...],
    Option("control to run as well; repeatable", default="zero-shot"),
]
Settings = Annotated[
    tuple[str, ...],
    Option(
        "train.*, encode.*, decode.*, delta.* or run.*, such as train.lr=1e-3; repeatable",
        "KEY=VALUE",
        in_file=False,  # a file has them as a mapping
        name="set",
    ),
]
Device = Annotated[str, Option("cpu, cuda, or a device such as cuda:0", "NAME")]
NotInFile = Annotated[bool, Option(in_file=False)]


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """How a long command reports what it does."""

    json: Annotated[
        NotInFile, Option("print events, one JSON object per line, and nothing else")
    ] = False
    quiet: Annotated[NotInFile, Option("print the result only, no progress")] = False

    def chosen(self) -> dict[str, Any]:
        """The other options, by field."""
        return {name: value for name, value in vars(self).items() if name not in _REPORTED}


_REPORTED = {field.name for field in fields(ReportOptions)}


@dataclass(frozen=True)
class TaskOptions:
    """A run's task, delta, backbone and seed."""

    task: TaskNames
    delta: DeltaName = "lora"
    backbone: BackboneName = BUNDLED
    seed: Annotated[Seed, Option("seed of initialisation, data order and dropout", "N")] = 1


@dataclass(frozen=True, kw_only=True)
class TrialOptions:
    """Everything else that decides a run, settings excepted."""

    recipe: RecipeName = None
    template: TemplateName = None
    scoring: ScoringRule = None
    chat_template: ChatTemplate = None
    shots: ShotCount = 0
    shot_choice: ShotChoice = "balanced"
    data: Data = None
    fold: Fold | None = None
    precision: Precision = "fp32"
    quantize: Quantize | None = None
    limit: Limit | None = None
    skip_bad_rows: Annotated[bool, Option("skip bad rows and report how many")] = False
    include: Include = ()


@dataclass(frozen=True)
class RunOptions(TrialOptions, TaskOptions):
    """What one run is asked for."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Where tensors are and what computes them."""

    engine: Annotated[
        Engine | None,
        Option("execution engine; auto is torch, all give the same results", default="auto"),
    ] = None
    checkpointing: Annotated[
        bool, Option("activation checkpointing: less memory, a third more time")
    ] = False
    shard: Annotated[
        bool,
        Option(
            "shard the frozen backbone over the processes (FSDP2), for backbones too large for one "
            "device"
        ),
    ] = False
    offload: Annotated[
        bool,
        Option("keep the frozen backbone in host memory, one layer at a time on the GPU: slow"),
    ] = False


@dataclass(frozen=True, kw_only=True)
class ExecutionOptions(EngineOptions):
    """How a run is carried out: the settings run.* that have an option of their own."""

    auto_batch: Annotated[
        bool,
        Option("if memory runs out, halve run.micro_tokens; without dropout, same results"),
    ] = False
    memory_limit: MemoryLimit = None
    track: Annotated[
        str | None, Option("trackers: wandb, mlflow (extras of the same names)", "A,B")
    ] = None

    shortcuts: Annotated[
        bool, Option("score shortcuts and compare the splits' rows after training (default)")
    ] = True

    def execution_settings(self) -> dict[str, Any]:
        """The settings run.* that these options give."""
        return {
            f"run.{field.name}": value
            for field in fields(ExecutionOptions)
            if (value := getattr(self, field.name)) != field.default
        }


def chosen_controls(control: Sequence[str]) -> tuple[str, ...]:
    """The controls that --control asks for; raise UserError if it is none and another."""
    if "none" in control and len(control) > 1:
        raise UserError("--control none excludes every other control; give one of them.")
    return tuple(name for name in control or ("zero-shot",) if name != "none")
