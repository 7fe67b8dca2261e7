"""The command `export`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cpm_tune.commands.arguments import make_parser


def export(argv: Sequence[str], prog: str) -> int:
    """`export RUN --to FORMAT --out DIR`."""
    from cpm_tune.runs.export import FORMATS

    p = make_parser(
        f"{prog} export",
        "Take a finished run's delta to another program. peft: lora, for transformers' CpmAnt.\n"
        "opendelta: lora, adapter, compacter. hf: CpmAntForCausalLM and its tokenizer files, with\n"
        "lora or full merged. merged: the same as a backbone folder for --backbone.",
        f"examples:\n  {prog} export results/RUN --to peft --out adapter\n"
        f"  {prog} export results/RUN --to hf --out merged",
    )
    p.add_argument("run", metavar="RUN", type=Path, help="the folder of a finished run")
    p.add_argument("--to", choices=FORMATS, required=True)
    p.add_argument("--out", metavar="DIR", type=Path, required=True, help="a new folder")
    p.add_argument("--backbone", metavar="NAME|DIR", help="where the run's backbone is now")
    args = p.parse_args(argv)
    from cpm_tune.api import load_run

    load_run(args.run).export(args.to, args.out, backbone=args.backbone)
    return 0
