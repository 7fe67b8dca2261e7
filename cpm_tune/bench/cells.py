"""From a suite to its cells: one run each, planned and checked, in the order of work."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cpm_tune.bench.suite import Control, Override, Suite
from cpm_tune.delta.config import CONFIGS
from cpm_tune.errors import UserError
from cpm_tune.planning.plan import Plan, Request, make_plan
from cpm_tune.task import Generate
from cpm_tune.task.registry import expand, load_preset, load_task

_WHOLE = ("template", "precision", "limit")  # what an override replaces beside settings


@dataclass(frozen=True)
class Cell:
    """One run of a suite. `needs` is the run id of its zero-shot control, which has to be there
    first; `group` says which backbone and data it needs, so that neighbours share them; `about` are
    the settings in which the suite's cells differ; `nproc` is in how many processes it runs."""

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

    @property
    def name(self) -> str:
        """Task, delta, backbone, seed and what else tells it from the others."""
        parts = [self.request.task, self.delta, self.backbone, f"seed {self.seed}", self.about]
        if self.control == "zero-shot":
            parts[1], parts[3] = "zero-shot", ""
        if self.control == "random-backbone":
            parts[2] = f"random {self.backbone}"
        return " ".join(filter(None, parts))


@dataclass(frozen=True)
class Report:
    """How a cell ended; "lost": its process ended, and the cell with it."""

    run_id: str
    status: Literal["finished", "failed", "lost"]
    seconds: float = 0.0
    error: str = ""
    detail: str = ""


def plan_of(cell: Cell) -> Plan:
    """The plan of a cell, with the inputs as they are now; UserError if they have changed."""
    plan = _controlled(make_plan(cell.request), cell.control)
    if plan.spec.run_id != cell.run_id:
        raise UserError(
            f"{cell.name}: its files changed after the suite was planned (now {plan.spec.run_id}); "
            "run the command again."
        )
    return plan


def _controlled(plan: Plan, control: Control | None) -> Plan:
    if control == "zero-shot":
        return plan.zero_shot()
    return plan.on_random_backbone() if control else plan


@dataclass
class _Expansion:
    suite: Suite
    tasks: list[str]
    matches: list[Mapping[str, frozenset[str]]]
    cells: dict[str, Cell] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)  # sentence -> where it came first
    used: set[tuple[int, str]] = field(default_factory=set)  # (scope, setting); -1 is the suite
    matched: set[int] = field(default_factory=set)


def make_cells(suite: Suite) -> list[Cell]:
    """Every cell of a suite, each run once, controls included.

    Raises UserError with every mistake found in any cell, a line each.
    """
    tasks = _expand(",".join(suite.tasks), suite)
    work = _Expansion(suite, tasks, [_match(cell, suite) for cell in suite.cells])
    for backbone, task, seed, delta in itertools.product(
        dict.fromkeys(suite.backbones), tasks, dict.fromkeys(suite.seeds), suite.deltas
    ):
        _add(work, task, delta, backbone, seed)
    problems = [f"{where}: {said}" for said, where in work.problems.items()]
    if not problems:
        problems = list(_idle(work))
    if problems:
        raise UserError("\n".join(problems))
    if not work.cells:
        raise UserError("the suite has no cells: every one is skipped.")
    order = {"zero-shot": 0, None: 1, "random-backbone": 2}
    return sorted(work.cells.values(), key=lambda c: (c.group[0], c.group[1], order[c.control]))


def _expand(names: str, suite: Suite) -> list[str]:
    problems, found = [], []
    for name in filter(None, names.split(",")):
        try:
            found += expand(name, suite.include)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    return list(dict.fromkeys(found))


def _match(cell: Override, suite: Suite) -> Mapping[str, frozenset[str]]:
    """What an override names, by axis."""
    said = cell.match
    found: dict[str, frozenset[str]] = {}
    if said.task is not None:
        found["task"] = frozenset(_expand(",".join(said.task), suite))
    if said.delta is not None:
        found["delta"] = frozenset(said.delta)
    if said.backbone is not None:
        found["backbone"] = frozenset(said.backbone)
    return found


def _add(work: _Expansion, task: str, delta: str, backbone: str, seed: int) -> None:
    """Add the runs of one point of the axes, with their controls."""
    suite = work.suite
    names = {
        "task": {task},
        "delta": {delta, Path(delta).stem},
        "backbone": {backbone, Path(backbone).name},
    }
    scopes: list[tuple[int, Override]] = []
    for number, (cell, match) in enumerate(zip(suite.cells, work.matches, strict=True)):
        if all(names[axis] & wanted for axis, wanted in match.items()):
            work.matched.add(number)
            scopes.append((number, cell))
    if any(cell.skip for _, cell in scopes):
        return
    where = f"{task}, {delta}, {Path(backbone).name}"
    try:
        applies = _applies(task, delta, suite.include)
    except UserError as error:
        work.problems.setdefault(str(error), where)
        return
    values: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}
    layers: list[tuple[int, Suite | Override]] = [(-1, suite), *scopes]
    for number, scope in layers:
        for key, value in scope.set.items():
            grid.pop(key, None)
            values[key] = value
        for key, several in scope.grid.items():
            values.pop(key, None)
            grid[key] = several
        work.used |= {(number, key) for key in (*scope.set, *scope.grid) if applies(key)}
    last: dict[str, Any] = {}
    for _, cell in scopes:
        last |= cell.model_dump(include={*_WHOLE, "nproc"}, exclude_none=True)
    request = Request(
        task,
        delta,
        template=last.get("template", suite.template),
        data=suite.data,
        backbone=backbone,
        seed=seed,
        precision=last.get("precision", suite.precision),
        limit=last.get("limit", suite.limit),
        skip_bad_rows=suite.skip_bad_rows,
        include=suite.include,
    )
    values = {key: value for key, value in values.items() if applies(key)}
    for settings in _points({key: several for key, several in grid.items() if applies(key)}):
        about = " ".join(f"{key.partition('.')[2]}={value}" for key, value in settings.items())
        own = replace(request, settings={**values, **settings})
        try:
            _add_runs(work, own, about, last.get("nproc", suite.nproc))
        except UserError as error:
            for line in str(error).splitlines():
                work.problems.setdefault(line, where)


def _points(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for point in itertools.product(*grid.values()):
        yield dict(zip(grid, point, strict=True))


def _applies(task: str, delta: str, include: Sequence[Path]) -> Any:
    """Whether a setting of the suite means something for this task and delta: a delta's own
    settings for that delta, decoding for tasks that write, training for what is trained."""
    kind = str(load_preset(delta).get("delta_type"))
    fields = CONFIGS[kind].model_fields if kind in CONFIGS else {}
    writes = isinstance(load_task(task, include).answer, Generate)

    def applies(key: str) -> bool:
        part, _, name = key.partition(".")
        if part == "delta":
            return name in fields
        return {"train": kind != "none", "decode": writes}.get(part, True)

    return applies


def _add_runs(work: _Expansion, request: Request, about: str, nproc: int) -> None:
    plan = make_plan(request)
    zero = plan.zero_shot()
    wants_zero = "zero-shot" in work.suite.controls and plan.spec.recipe is not None
    if wants_zero:
        _put(work, request, zero, "zero-shot", "", None, nproc)
    needs = zero.spec.run_id if wants_zero else None
    _put(work, request, plan, None, about, needs, nproc)
    if "random-backbone" in work.suite.controls and plan.spec.recipe is not None:
        _put(work, request, plan.on_random_backbone(), "random-backbone", about, None, nproc)


def _put(
    work: _Expansion,
    request: Request,
    plan: Plan,
    control: Control | None,
    about: str,
    needs: str | None,
    nproc: int,
) -> None:
    spec = plan.spec
    weights = f"{spec.backbone.init} {plan.folder.path} {spec.weights}"
    if spec.backbone.init == "random":
        weights += f" {spec.seed}"
    work.cells.setdefault(
        spec.run_id,
        Cell(
            request,
            control,
            spec.run_id,
            plan.delta_name,
            plan.folder.name,
            spec.seed,
            (weights, spec.task),
            needs,
            about,
            nproc,
        ),
    )


def _idle(work: _Expansion) -> Iterator[str]:
    """Overrides and settings without any effect: a slip in a name, most likely."""
    suite = work.suite
    for number, cell in enumerate(suite.cells):
        if number not in work.matched:
            said = cell.match.model_dump(exclude_none=True)
            named = ", ".join(f"{k} {'/'.join(v)}" for k, v in said.items()) or "nothing"
            yield f"cells.{number}: no cell of the suite matches {named}."
        elif not cell.skip:
            yield from _unused(work, number, cell, f"cells.{number}: ")
    yield from _unused(work, -1, suite, "")


def _unused(work: _Expansion, number: int, scope: Suite | Override, where: str) -> Iterator[str]:
    for key in (*scope.set, *scope.grid):
        if (number, key) not in work.used:
            yield f"{where}{key} has no effect on any cell: no task or delta there knows it."
