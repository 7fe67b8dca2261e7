"""Measures what the sample data teaches: LoRA next to controls that learn nothing from it.

    python scripts/sample_worth.py --out DIR --tasks ccpm,kbqa --seeds 1

For every task that has a sample recipe: the default LoRA on the embedded backbone, with the score
of a constant answer (majority), of the backbone without delta (zero-shot), and of the same LoRA on
a random frozen backbone of the same shape. Prints the Markdown table of
docs/reports/sample-data.md. Finished runs are kept in DIR and not run again, so this can be
interrupted; `--table` only prints what is there.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from cpm_tune.errors import UserError
from cpm_tune.planning.plan import Plan, Request, make_plan
from cpm_tune.runs.finished import finished
from cpm_tune.runs.session import tune
from cpm_tune.schema.record import RunRecord
from cpm_tune.task.registry import expand, load_task, load_tasks

HEAD = (
    "| task | metric | rows of test | majority | zero-shot | LoRA, random backbone | LoRA [95%] | "
    "steps, seconds |\n|---|---|---|---|---|---|---|---|"
)


def plans(request: Request) -> dict[str, Plan]:
    """The runs of a task, by what they are."""
    plan = make_plan(request)
    return {
        "lora": plan,
        "zero-shot": plan.zero_shot(),
        "random": plan.on_random_backbone(),
    }


def finished_runs(request: Request, out: Path) -> dict[str, RunRecord]:
    """Those of a task's runs that are finished."""
    named = {name: finished(out, plan.spec.run_id) for name, plan in plans(request).items()}
    return {name: record for name, record in named.items() if record is not None}


def line(requests: Sequence[Request], out: Path) -> str | None:
    """A task's row of the table: means over seeds, the interval of the first; None without runs."""
    every = [finished_runs(request, out) for request in requests]
    done = [records for records in every if "lora" in records]
    if not done:
        return None
    task, first = requests[0].task, done[0]["lora"]
    test, training = first.test, first.training
    assert training is not None

    def mean(name: str) -> str:
        values = [records[name].test.value for records in done if name in records]
        return f"{statistics.mean(values):.3f}" if values else "-"

    majority = first.controls["majority"].value
    lora = f"{mean('lora')} [{test.low:.3f}, {test.high:.3f}]"
    if len(done) > 1:
        lora += f" ({len(done)} seeds)"
    return (
        f"| {task} | {first.ranks_by} | {test.n} | {majority:.3f} | {mean('zero-shot')} | "
        f"{mean('random')} | {lora} | {training.steps}, {training.seconds:.0f} |"
    )


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", metavar="DIR", type=Path, required=True)
    parser.add_argument("--tasks", metavar="NAMES", default="all", help="as --task of tune.py")
    parser.add_argument("--delta", metavar="NAME|FILE", default="lora")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", metavar="N", type=int, default=0, help="default: all")
    parser.add_argument("--table", action="store_true", help="run nothing, print what is there")
    args = parser.parse_args()
    names = [name for name in expand(args.tasks) if load_task(name).sample_recipe]

    def request(name: str, seed: int) -> Request:
        settings = {"run.threads": args.threads}
        return Request(name, args.delta, seed=seed, precision=args.precision, settings=settings)

    for seed in [] if args.table else args.seeds:
        for name in names:
            print(f"\n{name}, seed {seed}", flush=True)
            try:
                tune(request(name, seed), out=args.out, controls=("zero-shot", "random-backbone"))
            except UserError as error:  # the others are still run
                print(f"failed     {error}", flush=True)
    print(HEAD)
    for task in load_tasks():
        if task.name in names:
            row = line([request(task.name, seed) for seed in args.seeds], args.out)
            if row:
                print(row)


if __name__ == "__main__":
    main()
