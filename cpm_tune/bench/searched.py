"""Suites that search: what a suite says of its searches, and a trial that is found by one.

Which run a search finds is known when it has ended, so such a trial has an id of its own, and
`OUT/.bench/found/ID` names the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cpm_tune.common.folders import disk_trouble
from cpm_tune.common.reading import read_regular
from cpm_tune.common.writing import write_atomically
from cpm_tune.planning.plan import Request
from cpm_tune.planning.settings import flat_settings
from cpm_tune.schema.options import Count, Seed
from cpm_tune.search.plan import Search, make_search

Applies = Callable[[str], bool]


def _flat(value: Any) -> Any:
    return flat_settings(value) if isinstance(value, dict) else value


Space = Annotated[dict[str, Any], BeforeValidator(_flat)]


class Searching(BaseModel):
    """The searches of a suite: the same budget for every one. `space` has the values of settings
    (none: the default space of each delta); a trial has those of them that it supports."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: Count = 20
    seconds: Count | None = None
    prune: bool = True
    space: Space = Field(default_factory=dict)


class Searched(BaseModel):
    """How the settings of a trial are found. `seed` is that of the search, which all seeds of a
    cell share; `zero_shot`: the control belongs to its run."""

    model_config = ConfigDict(frozen=True)

    name: str
    space: dict[str, Any]
    trials: int
    seconds: int | None
    prune: bool
    seed: Seed
    zero_shot: bool

    def id(self, seed: int, control: str | None = None) -> str:
        """The id of the trial of a seed, or of its control: a larger budget is another trial."""
        limit = "" if self.seconds is None else f".{self.seconds}s"
        pruned = "" if self.prune else ".whole"
        of = "" if control is None else f".{control}"
        return f"{self.name}.{self.trials}{limit}{pruned}.run{seed}{of}"

    def search(self, request: Request) -> Search:
        """The search itself. Raises UserError for what is wrong with it."""
        return _search(request, self.seed, self.space, self)


def searched(
    request: Request, of: Searching, space: Mapping[str, Any], seed: int, zero_shot: bool
) -> tuple[Searched, Search]:
    """The search by which a trial's settings are found. Raises UserError for its mistakes."""
    search = _search(request, seed, space, of)
    about = {"trials": of.trials, "seconds": of.seconds, "prune": of.prune}
    how = Searched(name=search.name, space=dict(space), seed=seed, zero_shot=zero_shot, **about)
    return how, search


def _search(
    request: Request, seed: int, space: Mapping[str, Any], of: Searching | Searched
) -> Search:
    own = Request(**{**vars(request), "seed": seed})
    budget: dict[str, Any] = {"trials": of.trials, "seconds": of.seconds, "prune": of.prune}
    return make_search(own, space, where="search.space", **budget)


def note_found(out: Path, trial_id: str, run_id: str) -> None:
    """Keep which run a trial's search has found."""
    path = _note(out, trial_id)
    with disk_trouble(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, run_id + "\n")


def found(out: Path, trial_id: str) -> str | None:
    """The run that a trial's search has found, if it has ended."""
    try:
        name = read_regular(_note(out, trial_id)).decode().strip()
    except (OSError, ValueError):
        return None
    return name if name and Path(name).name == name else None


def _note(out: Path, trial_id: str) -> Path:
    return out / ".bench" / "found" / trial_id
