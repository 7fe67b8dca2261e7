"""Options of the command `runs`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cpm_tune.common.option import Option
from cpm_tune.errors import UserError
from cpm_tune.schema.options import Natural, ResultsArgument

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
