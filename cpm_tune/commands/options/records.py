"""Options of the commands `runs` and `open`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cpm_tune.common.option import Option
from cpm_tune.errors import UserError
from cpm_tune.schema.options import Include, Natural, ResultsArgument

_Run = Annotated[Path, Option("folder of a run", "RUN", positional=True)]


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Look after the runs of a results folder."""


@dataclass(frozen=True, kw_only=True)
class RunsList:
    """List the runs of a results folder, finished or not.

    examples:
      tune.py runs list
    """

    results: ResultsArgument = Path("results")


@dataclass(frozen=True, kw_only=True)
class RunsShow:
    """Print a run's scores and settings.

    examples:
      tune.py runs show results/RUN
    """

    run: _Run


@dataclass(frozen=True, kw_only=True)
class RunsTail:
    """Print the end of a run's training log.

    examples:
      tune.py runs tail results/RUN --lines 5
    """

    run: _Run
    lines: Annotated[Natural, Option("lines to print")] = 10
    follow: Annotated[bool, Option("print new lines until the run is finished")] = False


@dataclass(frozen=True, kw_only=True)
class RunsRemove:
    """Remove runs; without --yes only print what would go.

    examples:
      tune.py runs rm results/RUN
      tune.py runs rm results/RUN --yes
    """

    runs: Annotated[tuple[Path, ...], Option("folders of runs", "RUN", positional=True)] = ()
    yes: Annotated[bool, Option("remove them: nothing brings them back")] = False

    def __post_init__(self) -> None:
        if not self.runs:
            raise UserError("name at least one run's folder, such as results/RUN.")


@dataclass(frozen=True, kw_only=True)
class RunsDu:
    """Print how many bytes each run takes, the largest first.

    examples:
      tune.py runs du
    """

    results: ResultsArgument = Path("results")


@dataclass(frozen=True, kw_only=True)
class Open:
    """Open the page of one run, or of a results folder, in the browser, and print its path.

    Without a desktop only the path is printed. The page is a file of the user's cache.

    examples:
      tune.py open results/RUN
      tune.py open results
      tune.py open results/RUN --out run.html --no-browser
    """

    run: Annotated[
        Path, Option("folder of a finished run, or a results folder", "RUN", positional=True)
    ]
    out: Annotated[Path | None, Option("file to write", "FILE", default="in the cache")] = None
    browser: Annotated[bool, Option("open the browser (default)")] = True
    include: Include = ()

    def __post_init__(self) -> None:
        if self.out is not None and self.out.is_dir():
            raise UserError(f"--out {self.out} is a folder; give a file.")
