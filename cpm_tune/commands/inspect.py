"""The commands that only look: list, show, doctor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cpm_tune.commands.arguments import make_parser


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def list_(argv: Sequence[str], prog: str) -> int:
    """`list tasks|deltas`."""
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
    from cpm_tune.commands.cards import delta_list, task_list

    print(task_list(args.include, args.data) if args.what == "tasks" else delta_list())
    return 0


def show(argv: Sequence[str], prog: str) -> int:
    """`show TASK`."""
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
    from cpm_tune.commands.cards import task_card

    print(
        task_card(
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


def doctor(argv: Sequence[str], prog: str) -> int:
    """`doctor`."""
    p = make_parser(
        f"{prog} doctor", "Check this machine: what works, what does not, how to mend it"
    )
    p.add_argument(
        "--data", metavar="DIR", type=Path, help="also check the data folders below this one"
    )
    args = p.parse_args(argv)
    from cpm_tune.commands.doctor import report

    text, ok = report(args.data)
    print(text)
    return 0 if ok else 1
