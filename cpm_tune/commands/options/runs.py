"""Options of the commands on finished runs and predictions: predict, export, score, rescore."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cpm_tune.common.option import Option
from cpm_tune.schema.options import (
    BackboneName,
    Count,
    Data,
    DeltaScale,
    Include,
    Limit,
    MemoryLimit,
    Natural,
    NotInFile,
    Quantize,
    ReportOptions,
    Results,
    ResultsArgument,
    Seed,
    Split,
    TaskName,
)

RunFolder = Annotated[Path, Option("folder of a finished run", "RUN", positional=True)]
RunBackbone = Annotated[
    BackboneName | None, Option("where the run's backbone is now", default="where it was")
]


@dataclass(frozen=True, kw_only=True)
class Predict(ReportOptions):
    """Predict with a finished run: other data, another split, a submission.

    examples:
      tune.py predict results/RUN --data DIR --submission
      tune.py predict results/RUN --split dev --out predictions
      tune.py predict results/RUN --delta-from ADAPTER
    """

    run: RunFolder
    data: Annotated[Data, Option(default="where the run found it")] = None
    split: Annotated[Split, Option("split to predict")] = "test"
    out: Annotated[
        Path | None, Option("new folder", "DIR", default="RUN.SPLIT.predictions here")
    ] = None
    backbone: RunBackbone = None
    delta_from: Annotated[
        Path | None,
        Option(
            "use another delta for this backbone: of a run, PEFT, OpenDelta or CPM-Live", "PATH"
        ),
    ] = None
    delta_scale: DeltaScale = 1.0
    limit: Limit | None = None
    memory_limit: MemoryLimit = None
    quantize: Quantize | None = None
    submission: Annotated[bool, Option("also write the organisers' submission file")] = False
    include: Include = ()


@dataclass(frozen=True, kw_only=True)
class Scale(ReportOptions):
    """Score a finished run with its delta scaled back towards zero: a run of its own per factor.

    For lora and full fine-tuning: 1 is the run itself, 0 the bare backbone. With `forgetting` and
    `leaderboard plot` the runs show how much of the score is left at how little forgetting.

    examples:
      tune.py scale results/RUN --by 0.25,0.5,0.75
    """

    run: RunFolder
    by: Annotated[
        tuple[DeltaScale, ...], Option("factor of the delta; repeatable", "X", commas=True)
    ]
    data: Annotated[Data, Option(default="where the run found it")] = None
    out: Annotated[Path | None, Option("results folder", "DIR", default="the run's")] = None
    backbone: RunBackbone = None
    overwrite: Annotated[NotInFile, Option("score a factor again")] = False
    include: Include = ()


@dataclass(frozen=True, kw_only=True)
class Forgetting(ReportOptions):
    """Measure how much worse the backbone predicts plain texts with a run's delta than without.

    The losses, in nats per character, go into the records of the runs; `leaderboard` and
    `leaderboard plot` show them.

    examples:
      tune.py forgetting results/RUN
      tune.py forgetting results --texts corpus

    exit codes: 0 all runs are measured; 1 some are not
    """

    runs: Annotated[Path, Option("folder of a run or of results", "RUN|RESULTS", positional=True)]
    texts: Annotated[
        Path | None,
        Option(
            "UTF-8 text with blank lines between texts, JSON lines with a text in each, or a "
            "folder of such files, each of which is a source",
            "FILE|DIR",
            default="48 short Chinese texts of four kinds, which are part of the package",
        ),
    ] = None
    limit: Annotated[
        Count, Option("first N texts of each source, of each its first 10,000 characters")
    ] = 200
    backbone: RunBackbone = None
    overwrite: Annotated[
        NotInFile, Option("measure again and replace what is recorded of these sources")
    ] = False


@dataclass(frozen=True, kw_only=True)
class Export(ReportOptions):
    """Write a finished run's delta for another program.

    peft: lora, for transformers' class of the model. opendelta: lora, adapter, compacter. hf: model
    and tokenizer files for transformers (CPM-Ant: 5.16.0 or later), with lora or full merged.
    merged: the same as a backbone folder for --backbone, of CPM-Ant in its native format, of others
    in Hugging Face's. A model card (README.md) with the scores is part of each.

    examples:
      tune.py export results/RUN --to peft --out adapter
      tune.py export results/RUN --to hf --out merged
    """

    run: RunFolder
    to: Annotated[Literal["opendelta", "peft", "hf", "merged"], Option("format to write")]
    out: Annotated[Path, Option("new folder", "DIR")]
    backbone: RunBackbone = None
    hub_dataset: Annotated[
        str | None,
        Option(
            "also write the test score in Hugging Face's .eval_results form, for this dataset of "
            "the hub",
            "OWNER/NAME[:TASK_ID]",
            default="no such file",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Score(ReportOptions):
    """Score any system's predictions into a record next to the runs.

    The predictions are the organisers' submission form (a file in the training format), or lines of
    {"id": ..., "prediction": ...}.

    examples:
      tune.py score --task ccpm --predictions CCPM.jsonl --name "My system" --data DIR
      tune.py score --task ccpm --predictions tasks/sample/ccpm/test.jsonl --name Gold
    """

    task: TaskName
    predictions: Annotated[Path, Option("file of predictions", "FILE")]
    name: Annotated[str, Option("name of the system in tables", "NAME")]
    data: Data = None
    split: Annotated[Literal["dev", "test"], Option("split that was predicted")] = "test"
    seed: Annotated[Seed, Option("number that tells several runs of a system apart", "N")] = 1
    out: Results = Path("results")
    overwrite: Annotated[NotInFile, Option("replace predictions of this name and seed")] = False
    include: Include = ()


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Print where a finished run is wrong on test: confusion, labels, calibration, scores by length
    and by overlap, wrong examples.

    examples:
      tune.py errors results/RUN
      tune.py errors results/RUN --examples 50 --out errors.html
    """

    run: RunFolder
    data: Annotated[Data, Option(default="where the run found it")] = None
    examples: Annotated[Natural, Option("wrong examples to list, the surest first")] = 10
    out: Annotated[Path | None, Option("file to write: a page (.html), or text (.txt)", "FILE")] = (
        None
    )
    include: Include = ()


@dataclass(frozen=True, kw_only=True)
class Diff:
    """Print the examples that one of two runs has right and the other wrong.

    examples:
      tune.py diff results/RUN results/OTHER
      tune.py diff results/RUN results/OTHER --out diff.jsonl
    """

    run: RunFolder
    other: Annotated[Path, Option("folder of another one", "OTHER", positional=True)]
    metric: Annotated[str | None, Option("metric", "NAME", default="the one that ranks")] = None
    data: Annotated[Data, Option(default="where the run found it")] = None
    examples: Annotated[Natural, Option("examples of each kind to list")] = 10
    out: Annotated[
        Path | None,
        Option("file to write: a page (.html), text (.txt), or all examples (.jsonl)", "FILE"),
    ] = None
    include: Include = ()


@dataclass(frozen=True, kw_only=True)
class Rescore(ReportOptions):
    """Recompute every metric from the stored predictions, and report differences.

    examples:
      tune.py rescore results
      tune.py rescore results --write

    exit codes: 0 nothing differs (or new scores were written); 1 scores differ, or a run has faults
    """

    results: ResultsArgument = Path("results")
    write: Annotated[bool, Option("write the new scores to the records; the old ones stay")] = False
