"""From a suite to its trials: one run each, planned and checked, in the order of work."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from cpm_tune.bench.searched import Searched, searched
from cpm_tune.bench.suite import Override, Suite
from cpm_tune.common.sizes import counted
from cpm_tune.delta.config import CONFIGS
from cpm_tune.errors import UserError
from cpm_tune.planning.plan import Plan, Request, make_plan
from cpm_tune.schema.options import Control, TrialOptions
from cpm_tune.task import Generate
from cpm_tune.task.registry import expand, load_preset, load_task

_SHARED = {field.name for field in fields(TrialOptions)} | {"nproc"}  # overrides replace them
_SHOWN = ("template", "precision", "quantize", "limit")  # in a trial's name, if overridden
_KINDS: tuple[Control | None, ...] = ("zero-shot", None, "random-backbone")  # in the order of work
MOST = 10_000  # combinations of a suite: more would be a slip, and take minutes to plan
_SUITE = -1  # the scope of a suite's own settings, among the indices of its overrides


@dataclass(frozen=True)
class Trial:
    """One run of a suite.

    `needs` is the run id of its zero-shot control, which has to be finished first, or the trial
    that carries out its `search`, of which `run_id` is the id then, not of the run; `group` names
    the backbone and the data, so that one worker gets the trials that share them; `about` lists the
    settings in which the suite's trials differ; `nproc` is the number of its processes.
    """

    request: Request
    control: Control | None
    run_id: str
    delta: str
    backbone: str
    seed: int
    group: tuple[str, str]
    needs: str | None = None
    about: str = ""
    nproc: int = 1
    search: Searched | None = None

    @property
    def name(self) -> str:
        """Task, delta, backbone, seed and the settings that distinguish it."""
        parts = [self.request.task, self.delta, self.backbone, f"seed {self.seed}", self.about]
        if self.control == "zero-shot":
            parts[1], parts[3] = "zero-shot", ""
        if self.control == "random-backbone":
            parts[2] = f"random {self.backbone}"
        return " ".join(filter(None, parts))


@dataclass(frozen=True)
class Report:
    """How a trial ended; "lost" means that its process ended before the trial did.

    `detail` is a traceback or the last output of a process. `last`: the worker's process can run no
    other trial and is replaced.
    """

    status: Literal["finished", "failed", "lost"]
    seconds: float = 0.0
    error: str = ""
    detail: str = ""
    last: bool = False


def plan_of(trial: Trial) -> Plan:
    """Plan a trial with its input files as they are now; raise UserError if they have changed."""
    plan = controlled(make_plan(trial.request), trial.control)
    if plan.spec.run_id != trial.run_id:
        raise UserError(
            f"{trial.name}: its files changed after the suite was planned (its run id is now "
            f"{plan.spec.run_id}). Run the command again."
        )
    return plan


def make_trials(suite: Suite) -> list[Trial]:
    """Every trial of a suite, each run once, controls included.

    Raises UserError with the mistakes of all trials, one line each.
    """
    expansion = _Expansion(suite)
    folds = tuple(dict.fromkeys(suite.folds)) or (suite.fold,)
    axes = (suite.backbones, expansion.tasks, suite.seeds, suite.deltas, folds)
    if math.prod(map(len, axes)) > MOST:
        raise _too_many()
    for backbone, task, seed, delta, fold in itertools.product(
        dict.fromkeys(suite.backbones),
        expansion.tasks,
        dict.fromkeys(suite.seeds),
        suite.deltas,
        folds,
    ):
        expansion.add(task, delta, backbone, seed, fold)
    if problems := list(expansion.problems()) or list(expansion.without_effect()):
        raise UserError("\n".join(problems))
    if not expansion.trials:
        raise UserError("the suite has no trials: its overrides skip all of them.")
    return sorted(expansion.trials.values(), key=lambda t: (*t.group, _KINDS.index(t.control)))


def _too_many() -> UserError:
    return UserError(
        f"the suite has more than {MOST:,} combinations; shorten its grids or its axes, or make "
        "several suites of it."
    )


class _Expansion:
    """A suite being expanded: its trials by run id, its mistakes, and which of its overrides and
    settings had an effect."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self.tasks = _expand(suite.tasks, suite)
        self._matches = [_match(override, suite) for override in suite.trials]
        self._matched: set[int] = set()
        self._effective: set[tuple[int, str]] = set()  # (override or _SUITE, setting)
        self._points = 0
        self.trials: dict[str, Trial] = {}
        # By the mistake without numbers of folds: where it occurs first, in words, its folds.
        self._problems: dict[str, tuple[str, str, list[int | None]]] = {}

    def add(self, task: str, delta: str, backbone: str, seed: int, fold: int | None = None) -> None:
        """Add the runs of one point of the axes, with their controls."""
        if self._points > MOST:
            return
        names = {
            "task": {task},
            "delta": {delta, Path(delta).stem},
            "backbone": {backbone, Path(backbone).name},
        }
        overrides = {
            number: self._suite.trials[number]
            for number, match in enumerate(self._matches)
            if all(names[axis] & wanted for axis, wanted in match.items())
        }
        self._matched |= overrides.keys()
        if any(override.skip for override in overrides.values()):
            return
        chosen = {name: getattr(self._suite, name) for name in _SHARED}
        for override in overrides.values():
            chosen |= override.model_dump(include=_SHARED, exclude_none=True)
        nproc = chosen.pop("nproc")
        chosen["fold"] = fold
        request = Request(task, delta, backbone, seed, **chosen)
        where = f"{task}, {delta}, {Path(backbone).name}"
        with self._noting(where, fold):
            if _generates(request):  # there are no options to score
                request = replace(request, scoring=None)
            space = self._space(request, overrides)
            for settings, about in self._settings(request, overrides):
                with self._noting(where, fold):
                    about = f"{self._other(request)} {about}".strip()
                    request = replace(request, settings=settings)
                    if space is None:
                        self._add_runs(request, about, nproc)
                    else:
                        self._add_searched(request, about, space, nproc)

    def _other(self, request: Request) -> str:
        """What distinguishes a request's trials, its zero-shot control too, besides settings."""
        chosen = {name: getattr(request, name) for name in _SHOWN}
        other = [f"{k}={v}" for k, v in chosen.items() if v != getattr(self._suite, k)]
        return " ".join([*other, *([] if request.fold is None else [f"fold={request.fold}"])])

    @contextlib.contextmanager
    def _noting(self, where: str, fold: int | None) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            for line in str(error).splitlines():
                key = line if fold is None else re.sub(r"_\d+", "_", line)
                folds = self._problems.setdefault(key, (where, line, []))[2]
                folds += [] if fold in folds else [fold]

    def problems(self) -> Iterator[str]:
        """The mistakes, each once: if it is that of several folds, of the first one."""
        for where, line, (_, *others) in self._problems.values():
            numbers = ", ".join(map(str, others))
            same = f" The same for {'folds' if others[1:] else 'fold'} {numbers}." if others else ""
            yield f"{where}: {line}{same}"

    def _settings(
        self, request: Request, overrides: Mapping[int, Override]
    ) -> Iterator[tuple[dict[str, Any], str]]:
        """Each combination of settings, and the part of it that comes from grids, as a text."""
        applies = _applies(request)
        values: dict[str, Sequence[Any]] = {}
        varied: set[str] = set()
        scopes: dict[int, Suite | Override] = {_SUITE: self._suite, **overrides}
        for number, scope in scopes.items():
            given = {key: [value] for key, value in scope.set.items()} | scope.grid
            given = {key: several for key, several in given.items() if applies(key)}
            self._effective |= {(number, key) for key in given}
            values |= given
            varied = (varied - scope.set.keys()) | scope.grid.keys()
        self._points += math.prod(map(len, values.values()))
        if self._points > MOST:
            raise _too_many()
        for point in itertools.product(*values.values()):
            settings = dict(zip(values, point, strict=True))
            about = [f"{k.partition('.')[2]}={v}" for k, v in settings.items() if k in varied]
            yield settings, " ".join(about)

    def _add_runs(self, request: Request, about: str, nproc: int) -> None:
        plan, needs = make_plan(request), None
        for control in _KINDS:
            if control and (control not in self._suite.controls or plan.spec.recipe is None):
                continue
            run = controlled(plan, control)
            spec = run.spec
            weights = f"{spec.backbone.init} {run.folder.path} {spec.weights} {spec.random_seed}"
            trial = Trial(
                request,
                control,
                spec.run_id,
                run.delta_name,
                run.folder.name,
                spec.seed,
                group=(weights, spec.task),
                needs=needs if control is None else None,
                about=self._other(request) if control == "zero-shot" else about,
                nproc=nproc,
            )
            self.trials.setdefault(spec.run_id, trial)
            if control == "zero-shot":
                needs = spec.run_id

    def _space(self, request: Request, overrides: Mapping[int, Override]) -> dict[str, Any] | None:
        """What is searched for a trial; None if nothing is."""
        searching = self._suite.search
        if searching is None or load_preset(request.delta).get("delta_type") == "none":
            return None
        applies, space = _applies(request), dict[str, Any]()
        scopes = [(_SUITE, searching.space)]
        scopes += [(number, override.space or {}) for number, override in overrides.items()]
        for number, given in scopes:
            own = {key: values for key, values in given.items() if applies(key)}
            self._effective |= {(number, f"space {key}") for key in own}
            space |= own
        if not space and any(given for _, given in scopes):
            raise UserError("search.space has no setting that this delta and task have.")
        return space

    def _add_searched(
        self, request: Request, about: str, space: Mapping[str, Any], nproc: int
    ) -> None:
        """Add a trial whose settings are found by a search with the suite's first seed."""
        suite = self._suite
        assert suite.search is not None
        zero_shot = "zero-shot" in suite.controls
        seed = suite.seeds[0]
        how, search = searched(request, suite.search, space, seed, zero_shot)
        plan, name = search.plan, search.plan.folder.name
        weights = f"{plan.spec.backbone.init} {plan.folder.path} {plan.spec.weights} None"
        group, needs = (weights, plan.spec.task), None
        if zero_shot:
            bare = plan.zero_shot()
            needs = bare.spec.run_id
            of_run = (needs, bare.delta_name, name, bare.spec.seed, group)
            self.trials.setdefault(
                needs, Trial(request, "zero-shot", *of_run, about=self._other(request), nproc=nproc)
            )
        run = Trial(
            request,
            None,
            how.id(request.seed),
            plan.delta_name,
            name,
            request.seed,
            group,
            needs=needs if request.seed == seed else how.id(seed),
            about=f"{about} search of {counted(how.trials, 'trial')}".strip(),
            search=how,
            nproc=nproc,
        )
        self.trials.setdefault(run.run_id, run)
        if "random-backbone" in suite.controls:
            random = replace(
                run,
                control="random-backbone",
                run_id=how.id(request.seed, "random"),
                group=(f"random {plan.folder.path} {request.seed}", plan.spec.task),
                needs=how.id(seed),
                about=about,
            )
            self.trials.setdefault(random.run_id, random)

    def without_effect(self) -> Iterator[str]:
        """Overrides and settings without any effect, most likely a slip in a name."""
        trials = self.trials.values()
        if trials and self._suite.search and all(trial.search is None for trial in trials):
            yield "search has no effect on any trial: no delta of the suite is trained."
            return
        yield from self._unused(_SUITE, self._suite, "")
        for number, override in enumerate(self._suite.trials):
            if number not in self._matched:
                match = override.match.model_dump(exclude_none=True)
                wanted = ", ".join(f"{k} {'/'.join(v)}" for k, v in match.items()) or "nothing"
                yield f"trials.{number}: no trial of the suite matches {wanted}."
            elif not override.skip:
                yield from self._unused(number, override, f"trials.{number}: ")

    def _unused(self, number: int, scope: Suite | Override, where: str) -> Iterator[str]:
        space = scope.search.space if isinstance(scope, Suite) and scope.search else {}
        for key in space if isinstance(scope, Suite) else scope.space or {}:
            if (number, f"space {key}") not in self._effective:
                yield f"{where}space: {key} has no effect on any trial: no task or delta has it."
        for key in (*scope.set, *scope.grid):
            if (number, key) not in self._effective:
                yield f"{where}{key} has no effect on any trial: no task or delta there has it."


def controlled(plan: Plan, control: Control | None) -> Plan:
    """A plan, or that of its control."""
    if control == "zero-shot":
        return plan.zero_shot()
    return plan.on_random_backbone() if control else plan


def _expand(names: Iterable[str], suite: Suite) -> list[str]:
    problems, tasks = [], []
    for name in names:
        try:
            tasks += expand(name, suite.include)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    return list(dict.fromkeys(tasks))


def _match(override: Override, suite: Suite) -> Mapping[str, frozenset[str]]:
    """The names that an override is for, by axis."""
    names = override.match.model_dump(exclude_none=True)
    if "task" in names:
        names["task"] = _expand(names["task"], suite)
    return {axis: frozenset(several) for axis, several in names.items()}


def _generates(request: Request) -> bool:
    return isinstance(load_task(request.task, request.include).answer, Generate)


def _applies(request: Request) -> Callable[[str], bool]:
    """Whether a setting means something for this task and delta: a delta's own settings for that
    delta, decoding for tasks that generate, training for a delta that is trained."""
    kind = str(load_preset(request.delta).get("delta_type"))
    fields = CONFIGS[kind].model_fields if kind in CONFIGS else {}
    generates = _generates(request)

    def applies(key: str) -> bool:
        part, _, name = key.partition(".")
        if part == "delta":
            return name in fields
        return {"train": kind != "none", "decode": generates}.get(part, True)

    return applies
