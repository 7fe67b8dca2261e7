"""The command `bench`: many runs from one command or one file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpm_tune.commands.arguments import Parser, make_parser

EXAMPLES = """\
examples:
  {prog} bench --tasks ccpm,clozet --deltas lora,prefix --seeds 1,2 --jobs 2
  {prog} bench --tasks cuge-lite --deltas lora,adapter,prefix --seeds 1,2,3 --dry-run
  {prog} bench --suite SUITE --jobs 2
  {prog} bench --tasks ccpm --deltas lora --nproc 2
  {prog} bench --suite SUITE --only-failed

exit codes: 0 every cell is finished, 1 some failed, 2 a mistake in what was given, 130 or 143
interrupted. The same command again goes on where it stopped, whatever stopped it."""


def bench_parser(prog: str) -> Parser:
    p = make_parser(
        f"{prog} bench",
        "Run every combination of tasks, deltas, backbones and seeds; finished runs are skipped.",
        EXAMPLES.format(prog=prog),
    )
    suite = p.add_argument_group("what to run (these options win over the suite file)")
    suite.add_argument("--suite", metavar="FILE", type=Path, help="YAML or JSON, see docs/bench.md")
    suite.add_argument("--tasks", metavar="A,B", help="tasks and suites of `list tasks`")
    suite.add_argument("--deltas", metavar="A,B", help="of `list deltas`, or files (default: lora)")
    suite.add_argument("--seeds", metavar="1,2", help="default: 1")
    suite.add_argument(
        "--backbones", metavar="A,B", help="names or folders (default: cpm-ant-tiny)"
    )
    suite.add_argument("--template", metavar="NAME", help="default: each task's first")
    suite.add_argument(
        "--data", metavar="DIR", type=Path, help="with a folder per task (default: sample data)"
    )
    suite.add_argument("--precision", choices=["fp32", "bf16"], help="default: fp32")
    suite.add_argument("--limit", metavar="N", type=int, help="the first N rows of each split")
    suite.add_argument("--skip-bad-rows", action="store_true", default=None)
    suite.add_argument(
        "--control",
        choices=["zero-shot", "random-backbone", "none"],
        action="append",
        help="cells beside the others (default: zero-shot); repeatable",
    )
    suite.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="as for tuning, wherever a task and delta knows the key; repeatable",
    )
    suite.add_argument(
        "--nproc",
        metavar="N",
        type=int,
        help="processes of each cell, each with its own GPU or its share of the cores (default: 1)",
    )
    suite.add_argument("--include", metavar="PATH", type=Path, action="append")
    suite.add_argument("--out", metavar="DIR", type=Path, help="default: results")
    how = p.add_argument_group("how to run it")
    how.add_argument(
        "--jobs", metavar="N", type=int, help="processes at a time (default: those of one cell)"
    )
    how.add_argument("--dry-run", action="store_true", help="print the plan and every cell")
    how.add_argument("--only-failed", action="store_true", help="only what failed before")
    how.add_argument("--quiet", action="store_true", help="print the ends of cells only")
    how.add_argument("--track", metavar="A,B", help="wandb, mlflow (extras of the same names)")
    how.add_argument("--executor", choices=["local", "ray"], default="local")
    how.add_argument("--ray-address", metavar="ADDRESS", help="default: the cluster, or a new one")
    how.add_argument("--cpus-per-process", metavar="N", type=int, help="Ray only (default: 1)")
    how.add_argument("--gpus-per-process", metavar="N", type=int, help="Ray only (default: 0)")
    how.add_argument("--debug", action="store_true", help="show tracebacks")
    return p


_OPTIONS = {
    "tasks": "tasks",
    "deltas": "deltas",
    "seeds": "seeds",
    "backbones": "backbones",
    "template": "template",
    "data": "data",
    "precision": "precision",
    "limit": "limit",
    "nproc": "nproc",
    "skip_bad_rows": "skip_bad_rows",
    "include": "include",
    "out": "out",
}


def _options(args: argparse.Namespace, parser: Parser) -> dict[str, Any]:
    """What the options say of the suite, by its keys."""
    from cpm_tune.planning.plan import parse_settings

    given = {key: getattr(args, name) for name, key in _OPTIONS.items()}
    found = {key: value for key, value in given.items() if value is not None}
    if args.control:
        if "none" in args.control and len(args.control) > 1:
            parser.error("--control none goes with no other --control")
        found["controls"] = [name for name in args.control if name != "none"]
    settings = parse_settings(args.settings)
    if args.track:
        settings["run.track"] = args.track
    if settings:
        found["set"] = settings
    return found


def bench(argv: Sequence[str], prog: str) -> int:
    """`bench --tasks … --deltas …` or `bench --suite FILE`."""
    parser = bench_parser(prog)
    args = parser.parse_args(argv)
    if args.tasks is None and args.suite is None:
        parser.error("give --tasks or --suite")
    for name, least in (("jobs", 1), ("cpus_per_process", 1), ("gpus_per_process", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            shown = name.replace("_", "-")
            parser.error(f"--{shown} is {value}, expected a whole number from {least}")
    on_ray = args.executor == "ray"
    for name in ("ray_address", "cpus_per_process", "gpus_per_process"):
        if getattr(args, name) is not None and not on_ray:
            parser.error(f"--{name.replace('_', '-')} goes with --executor ray")
    from cpm_tune.bench import session
    from cpm_tune.bench.suite import make_suite

    suite = make_suite(args.suite, _options(args, parser))
    cluster = None
    if on_ray:
        cluster = session.Cluster(
            args.ray_address, args.cpus_per_process or 1, args.gpus_per_process or 0
        )
    return session.bench(
        suite,
        jobs=args.jobs or 0,
        cluster=cluster,
        dry_run=args.dry_run,
        only_failed=args.only_failed,
        quiet=args.quiet,
    )
