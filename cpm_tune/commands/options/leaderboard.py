"""Options of `leaderboard` and its subcommands: compare, verify, plot, serve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cpm_tune.common.option import Option
from cpm_tune.common.sizes import checked_size
from cpm_tune.errors import UserError, absent
from cpm_tune.leaderboard.formats import FORMATS
from cpm_tune.schema.options import (
    Data,
    Include,
    Natural,
    ReportOptions,
    Results,
    ResultsArgument,
    Seed,
)

Published = Annotated[bool, Option("add published results, marked as such")]


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """Rank the runs of a results folder.

    The format text prints one table per dataset, every other format the whole leaderboard.
    A results folder with the name of a subcommand is given as ./NAME.

    examples:
      tune.py leaderboard results
      tune.py leaderboard results --published
      tune.py leaderboard results --format html --out leaderboard.html
      tune.py leaderboard results --texts --out leaderboard.html
      tune.py leaderboard results --files --out leaderboard.html
      tune.py leaderboard results --format latex --out leaderboard.tex
      tune.py leaderboard plot results --out figures
      tune.py leaderboard serve results
    """

    results: ResultsArgument = Path("results")
    format: Annotated[
        str | None,
        Option(
            "csv has one line per score, csv-wide one per row, html is one page that works offline",
            choices=tuple(FORMATS),
            default="by the ending of --out, else text",
        ),
    ] = None
    out: Annotated[Path | None, Option("file to write", "FILE", default="the terminal")] = None
    published: Published = False
    places: Annotated[
        bool, Option("test all pairs of rows, and print the places that each may have (1-3 of 9)")
    ] = False
    predictions: Annotated[
        Natural | None,
        Option("html: test predictions per run to show", default="all, or as many as fit"),
    ] = None
    files: Annotated[
        bool,
        Option(
            "html: write the records and all examples of all runs to a folder next to the page "
            "(leaderboard.files for leaderboard.html), which the page reads when they are looked at"
        ),
    ] = False
    texts: Annotated[
        bool | None,
        Option(
            "html: also embed the texts of these examples (prompts and options, shortened). "
            "Whoever gets the page gets them, and many datasets may not be redistributed "
            "(default: only those of the bundled sample data)"
        ),
    ] = None
    data: Annotated[
        Path | None,
        Option("with --texts: folder with one data folder per task", "DIR", default="each run's"),
    ] = None
    include: Include = ()

    def __post_init__(self) -> None:
        if self.out is not None and self.out.is_dir():
            raise UserError(f"--out {self.out} is a folder; give a file.")
        if self.data is not None and not self.texts:
            raise UserError("--data needs --texts.")
        if self.data is not None and not self.data.is_dir():
            raise UserError(f"--data {self.data}: {absent(self.data)}.")


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Compare rows on the same examples, dataset by dataset.

    A row is a run's folder, a delta (lora), BACKBONE:DELTA, or the name of a scored system, in
    --results; @key=value tells a delta's settings apart. All seeds of a row are compared together.

    examples:
      tune.py leaderboard compare results/RUN results/OTHER
      tune.py leaderboard compare lora adapter --results results
      tune.py leaderboard compare lora@train.lr=0.01 "My system"
      tune.py leaderboard compare --matrix
    """

    rows: Annotated[tuple[str, ...], Option("rows to compare", "ROW", positional=True)] = ()
    results: Results = Path("results")
    matrix: Annotated[
        bool, Option("print wins, ties and losses of each pair (without rows: of all)")
    ] = False
    split: Annotated[Literal["dev", "test"], Option("split to compare on")] = "test"
    metric: Annotated[str | None, Option("metric", "NAME", default="the one that ranks")] = None
    test: Annotated[Literal["auto", "permutation", "mcnemar"], Option("significance test")] = "auto"
    resamples: Annotated[int, Option("number of resamples", "N", 100)] = 10_000
    seed: Annotated[Seed, Option("seed of the resampling", "N")] = 0
    difference: Annotated[
        float | None, Option("print how many rows would show this difference", "D", above=0)
    ] = None
    format: Annotated[Literal["text", "md", "json"], Option("format to print")] = "text"

    def __post_init__(self) -> None:
        if len(self.rows) < 2 and not (self.matrix and not self.rows):
            raise UserError("give two or more rows, or --matrix alone.")


@dataclass(frozen=True, kw_only=True)
class Verify(ReportOptions):
    """Check every record of a results folder: schema, hashes, scores against predictions.

    examples:
      tune.py leaderboard verify results

    exit codes: 0 no faults; 1 faults
    """

    results: ResultsArgument = Path("results")


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Draw the page's figures as PNG and SVG.

    They are the seven capabilities, cost and quality with their Pareto front, and learning curves;
    of runs that differ in train.rows also test scores over the number of training rows; after
    `forgetting` also forgetting and quality.
    Needs matplotlib (the extra plot).

    examples:
      tune.py leaderboard plot results --out figures
      tune.py leaderboard plot results --out figures --cost seconds --published
    """

    results: ResultsArgument = Path("results")
    out: Annotated[Path, Option("folder for the figures", "DIR")]
    row: Annotated[
        tuple[str, ...],
        Option(
            "row, by its name in the table; repeatable, at most eight",
            "NAME",
            default="the first four",
        ),
    ] = ()
    cost: Annotated[
        Literal["n_trainable", "bytes", "seconds", "peak_memory_bytes", "samples_per_second"],
        Option("cost on the scatter's axis"),
    ] = "n_trainable"
    published: Published = False
    include: Include = ()


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve the page of a results folder live: progress of unfinished runs, new rows, and scores of
    predictions that are uploaded.

    Only this machine reaches it unless --host names another address. Needs starlette and uvicorn
    (the extra serve). Ctrl-C ends it.

    examples:
      tune.py leaderboard serve results
      tune.py leaderboard serve results --port 9000 --published
      tune.py leaderboard serve results --data DIR --accept results
    """

    results: ResultsArgument = Path("results")
    port: Annotated[int, Option("port; 0 takes a free one", "N", 0, 65535)] = 8765
    host: Annotated[
        str,
        Option(
            "address to listen at; whoever reaches another one than this machine's own sees the "
            "results without a password",
            "HOST",
        ),
    ] = "127.0.0.1"
    data: Annotated[Data, Option("data that uploads are scored with, in one folder per task")] = (
        None
    )
    accept: Annotated[
        Path | None,
        Option("folder that keeps uploaded predictions as rows", "DIR", default="nothing is kept"),
    ] = None
    max_upload: Annotated[str, Option("maximum size of an upload", "SIZE")] = "64MB"
    published: Published = False
    predictions: Annotated[
        Natural | None, Option("test predictions per run to show", default="all")
    ] = None
    texts: Annotated[
        bool | None,
        Option(
            "also show the texts of these examples to whoever opens the page (default: only those "
            "of the bundled sample data)"
        ),
    ] = None
    include: Include = ()

    def __post_init__(self) -> None:
        checked_size(self.max_upload, "--max-upload")
        if self.data is not None and not self.data.is_dir():
            raise UserError(f"--data {self.data}: {absent(self.data)}.")
