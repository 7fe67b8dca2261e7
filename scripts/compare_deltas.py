"""Compares all deltas: learning rates chosen on dev, then scores of several seeds, in one table.

    python scripts/compare_deltas.py --out DIR [--max-steps 300] [--jobs 2] [--write]

First each delta is tuned once (the first seed) on every task with three multiples of the task's
learning rate; while the multiple with the best mean rank on dev is the smallest or largest tried,
the next one on the ladder is tried too. Then the delta is tuned with the other seeds. Every run is
an ordinary one in DIR/runs, in a process of its own so that its peak memory is its own. Finished
runs are not repeated: interrupt this at any time and repeat the command to resume. DIR/deltas.md
contains both tables as far as they are known; --write puts the chosen multiples into
delta_configs/.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from delta_runs import Comparison, best_factor, dev_scores, run_all, sweep

from cpm_tune.common.writing import write_atomically
from cpm_tune.errors import UserError
from cpm_tune.planning.plan import Request
from cpm_tune.planning.settings import parse_settings
from cpm_tune.schema.record import RunRecord, ScoreRecord
from cpm_tune.task.registry import load_preset, load_task, preset_files

TASKS = ("ccpm", "clozet", "wantwords")  # sample tasks that the embedded backbone can learn


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


def sweep_table(comparison: Comparison, chosen: dict[str, float | None]) -> str:
    """Dev scores of every factor, the chosen one in bold."""
    rows = []
    for delta in chosen:
        for factor, scores in dev_scores(comparison, delta).items():
            name = f"**{factor:g}**" if factor == chosen[delta] else f"{factor:g}"
            cells = ["-" if s is None else f"{s.value:.3f}" for s in scores]
            rows.append((f"`{delta}`", name, *cells))
    return markdown(("delta", "x task's lr", *(f"{task}, dev" for task in comparison.tasks)), rows)


def final_table(
    comparison: Comparison, chosen: dict[str, float | None]
) -> tuple[str, dict[str, list[str]]]:
    """Cost and test score of every delta; the tasks on which each beats zero-shot."""
    zero = {task: comparison.record(comparison.zero_shot(task)) for task in comparison.tasks}
    constant, rows = ["majority", *"----"], []
    beats: dict[str, list[str]] = {}
    bare = ["zero-shot", "0", "0", "-", "-"]
    for task in comparison.tasks:
        record = zero[task]
        if record is None:
            bare, constant = [*bare, "-"], [*constant, "-"]
            continue
        bare.append(_cell(Mean(record.test.value, record.test.low, record.test.high), False))
        constant.append(f"{record.controls['majority'].value:.3f}")
    for delta, factor in chosen.items():
        cells: list[str] = []
        costs: list[RunRecord] = []
        for task in comparison.tasks:
            requests = [
                comparison.request(task, delta, n, factor) for n in comparison.seeds if factor
            ]
            records = [record for r in requests if (record := comparison.record(r)) is not None]
            if len(records) < len(comparison.seeds):
                cells.append(f"{len(records)} of {len(comparison.seeds)} runs")
                continue
            mean, base, costs = mean_of([r.test for r in records]), zero[task], [*costs, *records]
            up = records[0].test.higher_is_better
            better = base is not None and (
                mean.low > base.test.value if up else mean.high < base.test.value
            )
            beats.setdefault(delta, []).extend([task] * better)
            cells.append(_cell(mean, better))
        rows.append((f"`{delta}`", *_costs(costs), *cells))
    header = ("delta", "trained", "bytes", "samples/s", "peak MiB", *comparison.tasks)
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


def report(comparison: Comparison, out: Path, jobs: int) -> dict[str, float | None]:
    """Write deltas.md from the finished runs; return the chosen factors."""
    chosen = {delta: best_factor(dev_scores(comparison, delta)) for delta in comparison.deltas}
    table, beats = final_table(comparison, chosen)
    metrics = [load_task(task, comparison.common.include).metrics[0] for task in comparison.tasks]
    named = ", ".join(f"{t} ({m})" for t, m in zip(comparison.tasks, metrics, strict=True))
    enough = [delta for delta in comparison.deltas if len(beats.get(delta, [])) >= 2]
    edges = [
        delta
        for delta, factor in chosen.items()
        if len(comparison.factors_of(delta)) > 2
        and factor in (comparison.factors_of(delta)[0], comparison.factors_of(delta)[-1])
    ]
    data = "sample data" if comparison.common.data is None else str(comparison.common.data)
    lines = [
        f"Test scores on {data}: {named}; backbone {Path(comparison.common.backbone).name}, "
        f"{comparison.common.precision}, at most {comparison.max_steps} steps, "
        f"{len(comparison.seeds)} seeds, {jobs} run{'s' * (jobs > 1)} at a time. Mean over seeds; "
        "the 95% interval reflects the sampling of test rows and of seeds; * if all of it is "
        "better than zero-shot. "
        "samples/s: mean of the runs; peak MiB: the largest, with Python and libraries.",
        "",
        table,
        "",
        f"Better than zero-shot on at least two tasks: {', '.join(enough) or 'none'}.",
        "",
        f"Learning rates: dev scores of seed {comparison.seeds[0]} by multiple of the task's rate; "
        "the multiple with the best mean rank over the tasks is in bold.",
        "",
        sweep_table(comparison, chosen),
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


def compare(comparison: Comparison, out: Path, jobs: int) -> tuple[dict[str, float | None], int]:
    """Do all runs and write the report; return the chosen factors and the number of failures."""
    failed = run_all(
        comparison, [comparison.zero_shot(task) for task in comparison.tasks], jobs, "zero-shot"
    )
    failed += sweep(comparison, jobs)
    chosen = report(comparison, out, jobs)
    seeds = [
        comparison.request(task, delta, seed, factor)
        for seed in comparison.seeds
        for delta, factor in chosen.items()
        for task in comparison.tasks
        if factor is not None
    ]
    failed += run_all(comparison, seeds, jobs, "seeds")
    return report(comparison, out, jobs), failed


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
        comparison = Comparison(
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
            chosen, failed = report(comparison, args.out, args.jobs), 0
        else:
            chosen, failed = compare(comparison, args.out, args.jobs)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.write:
        write_presets(chosen)
    print((args.out / "deltas.md").read_text(encoding="utf-8"))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
