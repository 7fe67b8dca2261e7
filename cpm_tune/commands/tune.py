"""The command without a name: one run or a suite of tasks, with controls."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpm_tune.commands import COMMANDS
from cpm_tune.commands.arguments import Parser, add_holding, make_parser
from cpm_tune.version import VERSION

EXAMPLES = """\
examples:
  tune.py --task lcqmc --delta lora
  tune.py --task lcqmc --delta lora --data DIR --backbone DIR --seed 1 --set train.lr=1e-3
  tune.py --task lcqmc --delta lora --control random-backbone
  tune.py --task lcqmc --delta lora --dry-run
  tune.py --task lcqmc --delta lora --nproc 2
  tune.py list tasks
  tune.py list deltas
  tune.py show lcqmc
  tune.py predict results/RUN --data DIR --submission
  tune.py doctor
  tune.py leaderboard results

exit codes: 0 done, 2 a mistake in what was given, 1 any other failure; 130 or 143 stopped by
Ctrl-C or SIGTERM, 75 a process of --nproc was killed: the same command goes on."""


def tune_parser(prog: str) -> Parser:
    about = (
        "Tune a delta on a frozen CPM-Ant backbone for one task: train, select on dev, score on "
        f"test, record.\n\nother commands: {', '.join(COMMANDS)} (each has --help)."
    )
    p = make_parser(prog, about, EXAMPLES)
    p.add_argument("--version", action="version", version=f"cpm-tune {VERSION}")
    p.add_argument(
        "--task",
        metavar="NAME",
        help="a task of `list tasks`, a suite (cuge-lite, cuge, cpm-2, all), or a list with commas",
    )
    p.add_argument("--delta", metavar="NAME|FILE", help="a delta of `list deltas`, or a JSON file")
    p.add_argument("--template", metavar="NAME", help="a template of the task (default: its first)")
    p.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help="official files, or a folder per task below it (default: sample data)",
    )
    p.add_argument("--backbone", metavar="NAME|DIR", help="default: cpm-ant-tiny, the embedded one")
    p.add_argument(
        "--seed", type=int, help="decides initialisation, order and dropout (default: 1)"
    )
    p.add_argument("--precision", choices=["fp32", "bf16", "fp16"], help="default: fp32")
    add_holding(p, "; for --delta none")
    p.add_argument(
        "--engine",
        choices=["auto", "torch", "bmtrain"],
        help="what runs the tensors; the result is the same (default: auto, which is torch)",
    )
    p.add_argument(
        "--nproc",
        metavar="N",
        type=int,
        default=1,
        help="processes on this machine, each with its own GPU or its share of the cores",
    )
    p.add_argument(
        "--nnodes", metavar="N", type=int, default=1, help="machines; give the command on each"
    )
    p.add_argument(
        "--rendezvous", metavar="HOST:PORT", help="one of the machines and a free port of it"
    )
    p.add_argument(
        "--checkpointing",
        action="store_true",
        help="compute activations twice instead of keeping them: less memory, a third more time",
    )
    p.add_argument(
        "--shard",
        action="store_true",
        help="divide the frozen backbone over the processes (FSDP2): for one device too large",
    )
    p.add_argument(
        "--offload",
        action="store_true",
        help="keep the frozen backbone in host memory, one layer at a time on the GPU: slow",
    )
    p.add_argument(
        "--auto-batch",
        action="store_true",
        help="where memory gives out, halve run.micro_tokens and go on; the result is the same",
    )
    p.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="train.*, encode.*, decode.*, delta.* or run.*, such as train.lr=1e-3; repeatable",
    )
    p.add_argument(
        "--config", metavar="FILE", type=Path, help="YAML or JSON with any of these options"
    )
    p.add_argument("--limit", metavar="N", type=int, help="use the first N rows of each split")
    p.add_argument(
        "--skip-bad-rows", action="store_true", default=None, help="drop and count bad rows"
    )
    p.add_argument(
        "--control",
        choices=["zero-shot", "random-backbone", "none"],
        action="append",
        help="runs beside this one (default: zero-shot); repeatable",
    )
    p.add_argument(
        "--include",
        metavar="PATH",
        type=Path,
        action="append",
        default=[],
        help="a task file or a folder of them; repeatable",
    )
    p.add_argument("--track", metavar="A,B", help="wandb, mlflow (extras of the same names)")
    p.add_argument("--out", metavar="DIR", type=Path, help="results folder (default: results)")
    p.add_argument(
        "--overwrite", action="store_true", help="run again although a finished run is there"
    )
    p.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on with an unfinished run where it was stopped (default)",
    )
    p.add_argument(
        "--dry-run", action="store_true", help="print the plan, its parameters and memory"
    )
    p.add_argument("--only", help=argparse.SUPPRESS)  # of several tasks, in one of their processes
    p.add_argument("--quiet", action="store_true", help="print the result only")
    p.add_argument("--debug", action="store_true", help="show tracebacks")
    return p


_CONFIG_KEYS = (
    "task",
    "delta",
    "template",
    "data",
    "backbone",
    "seed",
    "precision",
    "quantize",
    "limit",
    "skip_bad_rows",
    "out",
)


def _merge_config(args: argparse.Namespace) -> dict[str, Any]:
    """Options of the command line over those of --config; returns the settings (`--set`)."""
    from cpm_tune.planning.plan import parse_settings, read_config

    values = read_config(args.config) if args.config else {}
    settings = values.pop("set", {})
    for name, value in values.items():
        if getattr(args, name) is None:
            setattr(args, name, Path(value) if name in ("data", "out") else value)
    track = {"run.track": args.track} if args.track else {}
    return {**settings, **parse_settings(args.settings), **track}


def tune(argv: Sequence[str], prog: str) -> int:
    """`tune.py --task NAME --delta NAME …`."""
    parser = tune_parser(prog)
    args = parser.parse_args(argv)
    settings = _merge_config(args)
    if args.engine:
        settings["run.engine"] = args.engine
    for name in ("checkpointing", "shard", "offload", "auto_batch"):
        if getattr(args, name):
            settings[f"run.{name}"] = True
    if args.memory_limit is not None:
        settings["run.memory_limit"] = args.memory_limit
    if not args.task:
        parser.error("--task is missing; `list tasks` shows the names")
    for name, at_least in (("seed", 0), ("limit", 1)):
        value = getattr(args, name)
        if value is not None and not at_least <= value < 2**32:
            parser.error(f"--{name} is {value}, expected a whole number from {at_least}")
    for name in ("nproc", "nnodes"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} is {getattr(args, name)}, expected a whole number from 1")
    if args.rendezvous and args.nnodes == 1:
        parser.error("--rendezvous is for several machines; add --nnodes N, or leave it out")
    start = None
    if args.nproc * args.nnodes > 1 and not args.dry_run:
        from cpm_tune.engine.rank import launched

        if not launched():
            from cpm_tune.engine.launch import launch

            def start(name: str) -> None:
                launch([*argv, "--only", name], args.nproc, args.nnodes, args.rendezvous)

            if args.nnodes > 1:  # machines would not agree on which task they are at
                launch(argv, args.nproc, args.nnodes, args.rendezvous)
                return 0
    from cpm_tune.planning.plan import Request
    from cpm_tune.runs.session import tune_all

    chosen = {
        key: getattr(args, key)
        for key in _CONFIG_KEYS
        if key != "out" and getattr(args, key) is not None
    }
    request = Request(**chosen, settings=settings, include=tuple(args.include))
    controls = args.control or ["zero-shot"]
    if "none" in controls and len(controls) > 1:
        parser.error("--control none goes with no other --control")
    tune_all(
        request,
        out=args.out or Path("results"),
        controls=[] if "none" in controls else controls,
        overwrite=args.overwrite,
        resume=args.resume,
        dry_run=args.dry_run,
        quiet=args.quiet,
        nproc=args.nproc * args.nnodes,
        only=args.only,
        start=start,
    )
    return 0
