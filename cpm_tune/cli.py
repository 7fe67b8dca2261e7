"""The command line: parse, call, print. Everything heavy is imported inside the commands."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cpm_tune import __version__
from cpm_tune.arguments import Parser, make_parser
from cpm_tune.errors import UserError, did_you_mean

EXAMPLES = """\
examples:
  tune.py --task lcqmc --delta lora
  tune.py --task lcqmc --delta lora --data DIR --backbone DIR --seed 1 --set train.lr=1e-3
  tune.py --task lcqmc --delta lora --control random-backbone
  tune.py --task lcqmc --delta lora --dry-run
  tune.py list tasks
  tune.py list deltas
  tune.py show lcqmc
  tune.py predict results/RUN --data DIR --submission
  tune.py doctor
  tune.py leaderboard results

exit codes: 0 done, 2 a mistake in what was given, 1 any other failure, 130 interrupted."""


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def _tune_parser(prog: str) -> Parser:
    about = (
        "Tune a delta on a frozen CPM-Ant backbone for one task: train, select on dev, score on "
        "test, record.\n\nother commands: list, show, predict, doctor, leaderboard, pretrain (each "
        "has --help)."
    )
    p = make_parser(prog, about, EXAMPLES)
    p.add_argument("--version", action="version", version=f"cpm-tune {__version__}")
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
    p.add_argument("--precision", choices=["fp32", "bf16"], help="default: fp32")
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
    p.add_argument("--out", metavar="DIR", type=Path, help="results folder (default: results)")
    p.add_argument(
        "--overwrite", action="store_true", help="run again although a finished run is there"
    )
    p.add_argument(
        "--dry-run", action="store_true", help="print the plan, its parameters and memory"
    )
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
    "limit",
    "skip_bad_rows",
    "out",
)


def _merge_config(args: argparse.Namespace) -> dict[str, Any]:
    """Options of the command line over those of --config; returns the settings (`--set`)."""
    from cpm_tune.plan import parse_settings, read_config

    values = read_config(args.config) if args.config else {}
    settings = values.pop("set", {})
    for name, value in values.items():
        if getattr(args, name) is None:
            setattr(args, name, Path(value) if name in ("data", "out") else value)
    return {**settings, **parse_settings(args.settings)}


def _tune(argv: Sequence[str], prog: str) -> int:
    parser = _tune_parser(prog)
    args = parser.parse_args(argv)
    settings = _merge_config(args)
    if not args.task:
        parser.error("--task is missing; `list tasks` shows the names")
    for name, at_least in (("seed", 0), ("limit", 1)):
        value = getattr(args, name)
        if value is not None and not at_least <= value < 2**32:
            parser.error(f"--{name} is {value}, expected a whole number from {at_least}")
    from cpm_tune.plan import Request
    from cpm_tune.session import tune_all

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
        dry_run=args.dry_run,
        quiet=args.quiet,
    )
    return 0


def _list(argv: Sequence[str], prog: str) -> int:
    p = make_parser(
        f"{prog} list",
        "List tasks or deltas.",
        f"examples:\n  {prog} list tasks\n  {prog} list deltas",
    )
    p.add_argument("what", choices=["tasks", "deltas"])
    p.add_argument("--data", metavar="DIR", type=Path, help="look here for a folder per task")
    p.add_argument(
        "--include",
        metavar="PATH",
        type=Path,
        action="append",
        default=[],
        help="a task file or a folder of them; repeatable",
    )
    args = p.parse_args(argv)
    from cpm_tune import show

    print(show.task_list(args.include, args.data) if args.what == "tasks" else show.delta_list())
    return 0


def _show(argv: Sequence[str], prog: str) -> int:
    p = make_parser(
        f"{prog} show",
        "Show a task's card and rendered, encoded rows.",
        f"examples:\n  {prog} show lcqmc\n  {prog} show lcqmc --template cpm-2 --rows 1\n"
        f"  {prog} show lcqmc --text",
    )
    p.add_argument("task", metavar="TASK")
    p.add_argument("--template", metavar="NAME")
    p.add_argument("--data", metavar="DIR", type=Path)
    p.add_argument("--split", choices=["train", "dev", "test"], default="dev")
    p.add_argument("--rows", type=_natural, default=2, help="how many rows (default: 2)")
    p.add_argument("--backbone", metavar="NAME|DIR", help="whose vocabulary to use")
    p.add_argument("--max-length", type=int, help="encode with this limit")
    p.add_argument(
        "--text", action="store_true", help="the prompts only, without tokens: answers at once"
    )
    p.add_argument("--include", metavar="PATH", type=Path, action="append", default=[])
    args = p.parse_args(argv)
    from cpm_tune import show

    print(
        show.task_card(
            args.task,
            args.template,
            args.data,
            args.split,
            args.rows,
            args.backbone,
            args.max_length,
            args.text,
            args.include,
        )
    )
    return 0


def _predict(argv: Sequence[str], prog: str) -> int:
    p = make_parser(
        f"{prog} predict",
        "Predict with a finished run: another file, another split, a submission.",
        f"examples:\n  {prog} predict results/RUN --data DIR --submission\n"
        f"  {prog} predict results/RUN --split dev --out predictions",
    )
    p.add_argument("run", metavar="RUN", type=Path, help="the folder of a finished run")
    p.add_argument("--data", metavar="DIR", type=Path, help="official files (default: sample data)")
    p.add_argument("--split", choices=["train", "dev", "test"], default="test")
    p.add_argument("--out", metavar="DIR", type=Path, help="default: RUN.SPLIT.predictions here")
    p.add_argument("--backbone", metavar="NAME|DIR", help="where the run's backbone is now")
    p.add_argument("--limit", metavar="N", type=int, help="the first N rows")
    p.add_argument(
        "--submission", action="store_true", help="also write the file the organisers score"
    )
    p.add_argument("--include", metavar="PATH", type=Path, action="append", default=[])
    args = p.parse_args(argv)
    if args.limit is not None and args.limit < 1:
        p.error(f"--limit is {args.limit}, expected a whole number from 1")
    from cpm_tune.rerun import predict_run

    predict_run(**vars(args))
    return 0


def _doctor(argv: Sequence[str], prog: str) -> int:
    p = make_parser(
        f"{prog} doctor", "Check this machine: what works, what does not, how to mend it"
    )
    p.add_argument(
        "--data", metavar="DIR", type=Path, help="also check the data folders below this one"
    )
    args = p.parse_args(argv)
    from cpm_tune.doctor import report

    text, ok = report(args.data)
    print(text)
    return 0 if ok else 1


def _leaderboard(argv: Sequence[str], prog: str) -> int:
    p = make_parser(
        f"{prog} leaderboard",
        "Rank the runs of a results folder.",
        f"examples:\n  {prog} leaderboard results\n  {prog} leaderboard results --format md",
    )
    p.add_argument("results", metavar="RESULTS", type=Path, nargs="?", default=Path("results"))
    p.add_argument("--format", choices=["text", "md", "json"], default="text")
    args = p.parse_args(argv)
    from cpm_tune.leaderboard.table import leaderboard

    text, warnings = leaderboard(args.results, args.format)
    for warning in warnings:
        print(f"note: {warning}", file=sys.stderr)
    print(text)
    return 0


def _pretrain(argv: Sequence[str], prog: str) -> int:
    from cpm_tune.pretrain.cli import pretrain

    return pretrain(argv, prog)


COMMANDS: dict[str, Callable[[Sequence[str], str], int]] = {
    "list": _list,
    "show": _show,
    "predict": _predict,
    "doctor": _doctor,
    "leaderboard": _leaderboard,
    "pretrain": _pretrain,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    prog = Path(sys.argv[0]).name
    prog = "tune.py" if prog in ("tune.py", "__main__.py") else prog
    debug = "--debug" in argv
    # Idle threads that spin make every thread wait where others share the cores: 5 to 10 times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):  # a terminal without Chinese gets escapes, no crash
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        if argv and argv[0] in COMMANDS:
            return COMMANDS[argv[0]](argv[1:], prog)
        if argv and not argv[0].startswith("-"):
            raise UserError(f"there is no command '{argv[0]}'.{did_you_mean(argv[0], COMMANDS)}")
        if not argv:
            _tune_parser(prog).print_help()
            return 2
        return _tune(argv, prog)
    except UserError as error:
        if debug:
            raise
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "interrupted; finished runs are kept, this one starts again next time.", file=sys.stderr
        )
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
