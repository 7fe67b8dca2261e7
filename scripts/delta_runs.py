"""The runs of compare_deltas.py: what is compared, each run in its own process, which rates."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from cpm_tune.errors import UserError
from cpm_tune.planning.plan import Request, make_plan
from cpm_tune.runs.finished import finished
from cpm_tune.schema.record import RunRecord, ScoreRecord
from cpm_tune.task.registry import load_task

LADDER = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FIRST = {  # the multiples that are tried in any case
    "full": (0.03, 0.1, 0.3),
    "soft_prompt": (3.0, 10.0, 30.0),
    "prefix": (1.0, 3.0, 10.0),
}
OTHERS = (0.3, 1.0, 3.0)
PRELOADED = ("cpm_tune.runs.session", "cpm_tune.delta.models", "datasets", "scipy.stats")


@dataclass(frozen=True)
class Comparison:
    """What is compared, and where the runs are."""

    tasks: tuple[str, ...]
    deltas: tuple[str, ...]
    seeds: tuple[int, ...]
    factors: tuple[float, ...] | None
    runs: Path
    common: Request
    max_steps: int

    def factors_of(self, delta: str) -> tuple[float, ...]:
        """The multiples of the task's learning rate: the first ones, and those that have run."""
        if self.factors:
            return self.factors
        first = FIRST.get(delta, OTHERS)
        return tuple(f for f in LADDER if f in first or self.has_run(delta, f))

    def has_run(self, delta: str, factor: float) -> bool:
        """Is the first seed finished with this multiple on every task?"""
        return all(self.record(self.request(t, delta, self.seeds[0], factor)) for t in self.tasks)

    def request(self, task: str, delta: str, seed: int, factor: float) -> Request:
        """One run: the task's own recipe, with a limit of steps and a learning rate."""
        definition = load_task(task, self.common.include)
        recipe = dict(definition.recipe)
        if self.common.data is None:
            recipe |= definition.sample_recipe
        settings = dict(self.common.settings or {})
        if delta != "none":
            settings = {
                "train.lr": recipe.get("lr", 1e-3) * factor,
                "train.max_steps": self.max_steps,
                "train.eval_every": max(1, self.max_steps // 3),
                "train.patience": 0,
                **settings,
            }
        return replace(self.common, task=task, delta=delta, seed=seed, settings=settings)

    def zero_shot(self, task: str) -> Request:
        """The backbone without delta; it takes no settings of training."""
        settings = {
            key: value
            for key, value in (self.common.settings or {}).items()
            if not key.startswith(("train.", "delta."))
        }
        return replace(self.common, task=task, delta="none", settings=settings)

    def record(self, request: Request) -> RunRecord | None:
        """The record of a finished run."""
        return finished(self.runs, make_plan(request).spec.run_id)


def _one(request: Request, runs: Path) -> None:
    from cpm_tune.runs.session import tune

    control = [] if request.delta == "none" else ["zero-shot"]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            tune(request, out=runs, controls=control)
    except UserError as error:
        print(f"failed: {request.task}, {request.delta}: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


def launch(request: Request, runs: Path) -> bool:
    """Run one in a process of its own that has everything imported; whether it worked."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    process = context.Process(target=_one, args=(request, runs), daemon=True)
    process.start()
    process.join()
    return process.exitcode == 0


def run_all(comparison: Comparison, requests: Iterable[Request], jobs: int, what: str) -> int:
    """Run what is not finished yet; return how many runs failed."""
    waiting = [request for request in requests if comparison.record(request) is None]
    print(f"{what}: {len(waiting)} runs to do", flush=True)

    def one(numbered: tuple[int, Request]) -> bool:
        number, request = numbered
        done = launch(request, comparison.runs)
        lr = (request.settings or {}).get("train.lr", 0)
        print(
            f"  [{number}/{len(waiting)}] {request.task} {request.delta} seed {request.seed} "
            f"lr {lr:g}: {'done' if done else 'failed'}",
            flush=True,
        )
        return done

    with ThreadPoolExecutor(jobs) as pool:
        return sum(not done for done in pool.map(one, enumerate(waiting, start=1)))


def dev_scores(comparison: Comparison, delta: str) -> dict[float, list[ScoreRecord | None]]:
    """The first seed's dev score on every task, per factor; None if there is none yet."""
    scores: dict[float, list[ScoreRecord | None]] = {}
    seed = comparison.seeds[0]
    for factor in comparison.factors_of(delta):
        records = [
            comparison.record(comparison.request(task, delta, seed, factor))
            for task in comparison.tasks
        ]
        scores[factor] = [r.scores["dev"][r.ranks_by] if r else None for r in records]
    return scores


def best_factor(scores: dict[float, list[ScoreRecord | None]]) -> float | None:
    """The factor whose mean rank over the tasks is best, if all are known; of equals the smaller.

    Ranks, not means: the tasks' metrics need not have one scale. Equal scores share their rank.
    """
    if any(score is None for line in scores.values() for score in line):
        return None
    ranks = dict.fromkeys(scores, 0.0)
    for column in zip(*scores.values(), strict=True):
        signed = [s.value if s.higher_is_better else -s.value for s in column if s is not None]
        for factor, value in zip(scores, signed, strict=True):
            better = sum(other > value for other in signed)
            ranks[factor] += better + (signed.count(value) - 1) / 2
    return min(scores, key=lambda factor: (ranks[factor], factor))


def next_factor(comparison: Comparison, delta: str) -> float | None:
    """The step of the ladder beyond the best multiple, if that is at the edge of what was tried."""
    tried, best = comparison.factors_of(delta), best_factor(dev_scores(comparison, delta))
    if comparison.factors or best is None:
        return None
    beyond = LADDER.index(best) + {tried[0]: -1, tried[-1]: 1}.get(best, 0)
    return LADDER[beyond] if 0 <= beyond < len(LADDER) and LADDER[beyond] not in tried else None


def sweep(comparison: Comparison, jobs: int) -> int:
    """Tune every delta with the first seed until its best multiple is known; return failures."""
    trials = [(d, factor) for d in comparison.deltas for factor in comparison.factors_of(d)]
    while trials:
        requests = [
            comparison.request(task, delta, comparison.seeds[0], factor)
            for delta, factor in trials
            for task in comparison.tasks
        ]
        failed = run_all(comparison, requests, jobs, "learning rates")
        if failed:
            return failed
        beyond = [(delta, next_factor(comparison, delta)) for delta in comparison.deltas]
        trials = [(delta, factor) for delta, factor in beyond if factor is not None]
    return 0
