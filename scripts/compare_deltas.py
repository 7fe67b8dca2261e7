"""Compares all deltas: learning rates chosen on dev, then scores of several seeds, in one table.

    python scripts/compare_deltas.py --out DIR [--max-steps 300] [--jobs 2] [--write]

First each delta is tuned once (the first seed) on every task with three multiples of the task's
learning rate; while the multiple with the best mean rank on dev is the smallest or largest tried,
the next one on the ladder is tried too. Then the delta is tuned with the other seeds. Every run is
an ordinary one in DIR/runs, in a process of its own so that its peak memory is its own. Finished
runs are not run again: interrupt this and start it again at will. DIR/deltas.md holds both tables
as far as they are known; --write puts the chosen multiples into delta_configs/.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import multiprocessing
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from cpm_tune.common.writing import write_atomically
from cpm_tune.errors import UserError
from cpm_tune.planning.plan import Request, make_plan
from cpm_tune.runs.finished import finished
from cpm_tune.schema.record import RunRecord, ScoreRecord
from cpm_tune.task.registry import load_preset, load_task, preset_files

TASKS = ("ccpm", "clozet", "wantwords")  # sample tasks that the embedded backbone can learn
LADDER = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FIRST = {  # the multiples that are tried in any case
    "full": (0.03, 0.1, 0.3),
    "soft_prompt": (3.0, 10.0, 30.0),
    "prefix": (1.0, 3.0, 10.0),
}
OTHERS = (0.3, 1.0, 3.0)
PRELOADED = (
    *(
        "cpm_tune.runs.session",
        "cpm_tune.tuning.train",
        "cpm_tune.tuning.score",
        "cpm_tune.data.store",
    ),
    *("cpm_tune.delta.models", "datasets", "scipy.stats"),
)


@dataclass(frozen=True)
class Plan:
    """What is compared, and where the runs lie."""

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
        own = load_task(task, self.common.include)
        recipe = {**own.recipe, **(own.sample_recipe if self.common.data is None else {})}
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
    """One run in a process of its own, where all is imported already. Did it work?"""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    process = context.Process(target=_one, args=(request, runs), daemon=True)
    process.start()
    process.join()
    return process.exitcode == 0


def run_all(plan: Plan, requests: Iterable[Request], jobs: int, what: str) -> int:
    """Carry out what is not finished yet; return how many runs failed."""
    waiting = [request for request in requests if plan.record(request) is None]
    print(f"{what}: {len(waiting)} runs to do", flush=True)

    def one(numbered: tuple[int, Request]) -> bool:
        number, request = numbered
        done = launch(request, plan.runs)
        lr = (request.settings or {}).get("train.lr", 0)
        print(
            f"  [{number}/{len(waiting)}] {request.task} {request.delta} seed {request.seed} "
            f"lr {lr:g}: {'done' if done else 'failed'}",
            flush=True,
        )
        return done

    with ThreadPoolExecutor(jobs) as pool:
        return sum(not done for done in pool.map(one, enumerate(waiting, start=1)))


def dev_scores(plan: Plan, delta: str) -> dict[float, list[ScoreRecord | None]]:
    """Of each factor: the first seed's dev score on every task, None where there is none yet."""
    found: dict[float, list[ScoreRecord | None]] = {}
    for factor in plan.factors_of(delta):
        records = [
            plan.record(plan.request(task, delta, plan.seeds[0], factor)) for task in plan.tasks
        ]
        found[factor] = [r.scores["dev"][r.ranks_by] if r else None for r in records]
    return found


def best_factor(scores: dict[float, list[ScoreRecord | None]]) -> float | None:
    """The factor whose mean rank over the tasks is best, if all are known; of equals the smaller.

    Ranks, not means: the tasks' metrics need not have one scale. Equal scores share their rank.
    """
    if any(score is None for line in scores.values() for score in line):
        return None
    ranks = dict.fromkeys(scores, 0.0)
    for column in zip(*scores.values(), strict=True):
        signed = [s.value if s.higher_is_better else -s.value for s in column if s is not None]
        for factor, own in zip(scores, signed, strict=True):
            better = sum(other > own for other in signed)
            ranks[factor] += better + (signed.count(own) - 1) / 2
    return min(scores, key=lambda factor: (ranks[factor], factor))


def next_factor(plan: Plan, delta: str) -> float | None:
    """The step of the ladder beyond the best multiple, if that is at the edge of what was tried."""
    tried, best = plan.factors_of(delta), best_factor(dev_scores(plan, delta))
    if plan.factors or best is None:
        return None
    beyond = LADDER.index(best) + {tried[0]: -1, tried[-1]: 1}.get(best, 0)
    return LADDER[beyond] if 0 <= beyond < len(LADDER) and LADDER[beyond] not in tried else None


def sweep(plan: Plan, jobs: int) -> int:
    """Tune every delta with the first seed until its best multiple is known; return failures."""
    wanted = [(delta, factor) for delta in plan.deltas for factor in plan.factors_of(delta)]
    while wanted:
        requests = [
            plan.request(task, delta, plan.seeds[0], factor)
            for delta, factor in wanted
            for task in plan.tasks
        ]
        failed = run_all(plan, requests, jobs, "learning rates")
        if failed:
            return failed
        beyond = [(delta, next_factor(plan, delta)) for delta in plan.deltas]
        wanted = [(delta, factor) for delta, factor in beyond if factor is not None]
    return 0


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with a 95% interval."""

    value: float
    low: float
    high: float


def mean_of(scores: Sequence[ScoreRecord]) -> Mean:
    """Mean over seeds. Its variance is the mean of the runs' own (test rows) plus that between
    seeds divided by their number; the interval is normal."""
    value = statistics.fmean(s.value for s in scores)
    rows = statistics.fmean(((s.high - s.low) / (2 * 1.96)) ** 2 for s in scores)
    seeds = statistics.variance([s.value for s in scores]) / len(scores) if len(scores) > 1 else 0.0
    half = 1.96 * math.sqrt(rows + seeds)
    return Mean(value, value - half, value + half)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def sweep_table(plan: Plan, chosen: dict[str, float | None]) -> str:
    """Dev scores of every factor, the chosen one in bold."""
    rows = []
    for delta in chosen:
        for factor, scores in dev_scores(plan, delta).items():
            name = f"**{factor:g}**" if factor == chosen[delta] else f"{factor:g}"
            cells = ["-" if s is None else f"{s.value:.3f}" for s in scores]
            rows.append((f"`{delta}`", name, *cells))
    return markdown(("delta", "x task's lr", *(f"{task}, dev" for task in plan.tasks)), rows)


def final_table(plan: Plan, chosen: dict[str, float | None]) -> tuple[str, dict[str, list[str]]]:
    """Cost and test score of every delta; the tasks on which each beats zero-shot."""
    zero = {task: plan.record(plan.zero_shot(task)) for task in plan.tasks}
    constant, rows = ["majority", *"----"], []
    beats: dict[str, list[str]] = {}
    bare = ["zero-shot", "0", "0", "-", "-"]
    for task in plan.tasks:
        record = zero[task]
        if record is None:
            bare, constant = [*bare, "-"], [*constant, "-"]
            continue
        bare.append(_cell(Mean(record.test.value, record.test.low, record.test.high), False))
        constant.append(f"{record.controls['majority'].value:.3f}")
    for delta, factor in chosen.items():
        cells: list[str] = []
        costs: list[RunRecord] = []
        for task in plan.tasks:
            found = [
                plan.record(plan.request(task, delta, seed, factor)) if factor else None
                for seed in plan.seeds
            ]
            records = [record for record in found if record is not None]
            if len(records) < len(plan.seeds):
                cells.append(f"{len(records)} of {len(plan.seeds)} runs")
                continue
            mean, base, costs = mean_of([r.test for r in records]), zero[task], [*costs, *records]
            up = records[0].test.higher_is_better
            better = base is not None and (
                mean.low > base.test.value if up else mean.high < base.test.value
            )
            beats.setdefault(delta, []).extend([task] * better)
            cells.append(_cell(mean, better))
        rows.append((f"`{delta}`", *_costs(costs), *cells))
    header = ("delta", "trained", "bytes", "samples/s", "peak MiB", *plan.tasks)
    return markdown(header, [constant, bare, *rows]), beats


def _costs(records: Sequence[RunRecord]) -> tuple[str, str, str, str]:
    if not records:
        return ("-", "-", "-", "-")
    speed = statistics.fmean(r.training.samples_per_second for r in records if r.training)
    memory = max(r.environment.peak_memory_bytes for r in records if r.environment)
    one = records[0].delta
    return f"{one.n_trainable:,}", f"{one.bytes:,}", f"{speed:.0f}", f"{memory / 2**20:,.0f}"


def _cell(mean: Mean, better: bool) -> str:
    star = "*" if better else ""
    return f"{mean.value:.3f}{star} [{mean.low:.3f}, {mean.high:.3f}]"


def report(plan: Plan, out: Path, jobs: int) -> dict[str, float | None]:
    """Write deltas.md from the finished runs; return the chosen factors."""
    chosen = {delta: best_factor(dev_scores(plan, delta)) for delta in plan.deltas}
    table, beats = final_table(plan, chosen)
    metrics = [load_task(task, plan.common.include).metrics[0] for task in plan.tasks]
    named = ", ".join(f"{t} ({m})" for t, m in zip(plan.tasks, metrics, strict=True))
    enough = [delta for delta in plan.deltas if len(beats.get(delta, [])) >= 2]
    edges = [
        delta
        for delta, factor in chosen.items()
        if len(plan.factors_of(delta)) > 2
        and factor in (plan.factors_of(delta)[0], plan.factors_of(delta)[-1])
    ]
    data = "sample data" if plan.common.data is None else str(plan.common.data)
    lines = [
        f"Test scores on {data}: {named}; backbone {Path(plan.common.backbone).name}, "
        f"{plan.common.precision}, at most {plan.max_steps} steps, {len(plan.seeds)} seeds, "
        f"{jobs} run{'s' * (jobs > 1)} at a time. Mean over seeds; the 95% interval holds the "
        "sampling of test rows and of seeds; * where all of it is better than zero-shot. "
        "samples/s: mean of the runs; peak MiB: the largest, with Python and libraries.",
        "",
        table,
        "",
        f"Better than zero-shot on at least two tasks: {', '.join(enough) or 'none'}.",
        "",
        f"Learning rates: dev scores of seed {plan.seeds[0]} by multiple of the task's rate; the "
        "multiple with the best mean rank over the tasks is in bold.",
        "",
        sweep_table(plan, chosen),
    ]
    if edges:
        lines += ["", f"Chosen at the edge of what was tried: {', '.join(edges)}."]
    write_atomically(out / "deltas.md", "\n".join(lines) + "\n")
    return chosen


def write_presets(chosen: dict[str, float | None]) -> None:
    """Put the chosen factors into delta_configs/, leaving all else in the files as it is."""
    for delta, factor in chosen.items():
        path = preset_files().get(delta)
        if path is None or factor is None:
            continue
        text = re.sub(r'^  "lr_factor": .*\n', "", path.read_text("utf-8"), flags=re.MULTILINE)
        text = re.sub(r'^(  "delta_type")', rf'  "lr_factor": {factor:g},\n\1', text, flags=re.M)
        json.loads(text)
        write_atomically(path, text)
        print(f"{path}: lr_factor {factor:g}")


def compare(plan: Plan, out: Path, jobs: int) -> tuple[dict[str, float | None], int]:
    """Do all runs and write the report; return the chosen factors and the number of failures."""
    failed = run_all(plan, [plan.zero_shot(task) for task in plan.tasks], jobs, "zero-shot")
    failed += sweep(plan, jobs)
    chosen = report(plan, out, jobs)
    seeds = [
        plan.request(task, delta, seed, factor)
        for seed in plan.seeds
        for delta, factor in chosen.items()
        for task in plan.tasks
        if factor is not None
    ]
    failed += run_all(plan, seeds, jobs, "seeds")
    return report(plan, out, jobs), failed


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, compare, print the report."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    everything = [n for n in preset_files() if load_preset(n).get("delta_type") != "none"]
    p.add_argument("--out", metavar="DIR", type=Path, required=True)
    p.add_argument("--tasks", metavar="TASK", nargs="+", default=list(TASKS))
    p.add_argument("--deltas", metavar="NAME|FILE", nargs="+", default=everything)
    p.add_argument("--seeds", metavar="N", type=int, nargs="+", default=[1, 2, 3])
    p.add_argument("--factors", metavar="X", type=float, nargs="+", help="multiples of the rate")
    p.add_argument("--max-steps", metavar="N", type=int, default=300)
    p.add_argument("--data", metavar="DIR", type=Path, help="default: sample data")
    p.add_argument("--backbone", metavar="NAME|DIR", default=Request.backbone)
    p.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    p.add_argument("--limit", metavar="N", type=int)
    p.add_argument("--include", metavar="PATH", type=Path, action="append", default=[])
    p.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="settings")
    p.add_argument("--jobs", metavar="N", type=int, default=1, help="runs at a time (default: 1)")
    p.add_argument("--report", action="store_true", help="run nothing, write what is known")
    p.add_argument("--write", action="store_true", help="put the factors into delta_configs/")
    args = p.parse_args(argv)
    from cpm_tune.planning.settings import parse_settings

    try:
        common = Request(
            task="",
            data=args.data,
            backbone=args.backbone,
            precision=args.precision,
            limit=args.limit,
            include=tuple(args.include),
            settings={"run.threads": 1, **parse_settings(args.settings)},
        )
        plan = Plan(
            tuple(args.tasks),
            tuple(args.deltas),
            tuple(args.seeds),
            tuple(args.factors) if args.factors else None,
            args.out / "runs",
            common,
            args.max_steps,
        )
        args.out.mkdir(parents=True, exist_ok=True)
        if args.report:
            chosen, failed = report(plan, args.out, args.jobs), 0
        else:
            chosen, failed = compare(plan, args.out, args.jobs)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.write:
        write_presets(chosen)
    print((args.out / "deltas.md").read_text(encoding="utf-8"))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
