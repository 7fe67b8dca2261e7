"""`estimate`: the memory that tuning takes in each process, by part; nothing is run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cpm_tune.commands.arguments import make_parser
from cpm_tune.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from cpm_tune.backbone.config import CPMAntConfig
    from cpm_tune.memory.estimate import Memory, Work

EXAMPLES = """\
examples:
  tune.py estimate --backbone cpm-ant-10b --delta lora --engine bmtrain --nproc 8
  tune.py estimate --backbone cpm-ant-10b --delta lora --shard --nproc 8 --checkpointing
  tune.py estimate --backbone cpm-ant-1b --delta full --precision fp32
  tune.py estimate --backbone cpm-ant-tiny --device cpu --batch-size 8 --length 128"""


def _parser(prog: str) -> argparse.ArgumentParser:
    p = make_parser(
        f"{prog} estimate",
        "Print the memory that tuning takes in each process, by part. No weights are needed.",
        EXAMPLES,
    )
    p.add_argument(
        "--backbone",
        metavar="NAME|DIR",
        default="cpm-ant-10b",
        help="cpm-ant-10b, -7b, -3b, -1b, -300m (shapes alone), or as for tuning",
    )
    p.add_argument("--delta", metavar="NAME|FILE", default="lora")
    p.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="bf16")
    p.add_argument("--quantize", choices=["int8"])
    p.add_argument("--engine", choices=["auto", "torch", "bmtrain"], default="auto")
    p.add_argument("--zero", type=int, choices=[2, 3], default=3, help="bmtrain's level")
    p.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    p.add_argument("--nproc", metavar="N", type=int, default=1, help="processes on all machines")
    p.add_argument("--batch-size", metavar="N", type=int, default=32, help="over all processes")
    p.add_argument("--length", metavar="N", type=int, default=256, help="tokens of a sequence")
    p.add_argument(
        "--sequences", metavar="N", type=int, default=1, help="of an example: one for each option"
    )
    p.add_argument(
        "--answer-tokens",
        metavar="N",
        type=int,
        default=0,
        help="of the texts that are learnt and written (default: options, scored by a word)",
    )
    p.add_argument("--micro-tokens", metavar="N", type=int, default=8192, help="of a forward pass")
    for name in ("checkpointing", "shard", "offload"):
        p.add_argument(f"--{name}", action="store_true", help="as for tuning")
    p.add_argument("--debug", action="store_true", help="show tracebacks")
    return p


def estimate(argv: Sequence[str], prog: str) -> int:
    """`tune.py estimate --backbone NAME --delta NAME …`."""
    parser = _parser(prog)
    args = parser.parse_args(argv)
    least = {"nproc": 1, "batch_size": 1, "length": 8, "sequences": 1, "answer_tokens": 0}
    for name, at_least in {**least, "micro_tokens": 256}.items():
        if not at_least <= getattr(args, name) < 2**31:
            parser.error(
                f"--{name.replace('_', '-')} is {getattr(args, name)}, expected a whole number "
                f"from {at_least}"
            )
    if args.shard and not args.offload and args.nproc == 1:
        parser.error("--shard divides the backbone over several processes; add --nproc N")
    from cpm_tune.delta.config import parse_config
    from cpm_tune.memory.estimate import Work
    from cpm_tune.memory.estimate import estimate as estimated
    from cpm_tune.planning.placement import placement
    from cpm_tune.planning.skeleton import make_skeleton
    from cpm_tune.schema.spec import Execution
    from cpm_tune.task.registry import load_preset

    execution = Execution(
        engine=args.engine,
        device=args.device,
        micro_tokens=args.micro_tokens,
        checkpointing=args.checkpointing,
        shard=args.shard,
        offload=args.offload,
        zero=args.zero,
    )
    delta = parse_config(load_preset(args.delta), f"delta {args.delta}")
    problems = list(placement(execution, delta, args.precision, args.quantize))
    if problems:
        raise UserError("\n".join(problems))
    work = Work(
        skeleton=make_skeleton(_shape(args.backbone), delta),
        batch_size=args.batch_size,
        length=args.length,
        sequences=args.sequences,
        answer_tokens=args.answer_tokens,
        precision=args.precision,
        quantize=args.quantize,
        nproc=args.nproc,
        generates=args.answer_tokens > 0,
        execution=execution,
        gpu=args.device == "cuda",
    )
    print(_text(work, estimated(work)))
    return 0


def _shape(name: str) -> CPMAntConfig:
    from pathlib import Path

    from cpm_tune.backbone.bundled import NAME, resolve
    from cpm_tune.backbone.config import PRESETS
    from cpm_tune.backbone.folder import open_folder

    if name in PRESETS and not Path(name).is_dir():
        return PRESETS[name]
    if name != NAME and not Path(name).is_dir():
        raise UserError(
            f"--backbone {name}: there is no such folder.{did_you_mean(name, [*PRESETS, NAME])}"
        )
    return open_folder(resolve(name)).config


def _text(work: Work, found: Memory) -> str:
    from cpm_tune.common.texts import table

    def size(n: int) -> str:
        return f"{n / 2**30:.2f} GiB" if n >= 2**30 / 10 else f"{n / 2**20:.1f} MiB"

    held = "the whole backbone"
    if work.sharded and not found.weights:
        held = "none: trained"
    elif work.sharded:
        held = f"1/{work.nproc} of the layers, the embeddings"
        if work.execution.offload and not work.bmtrain and work.gpu:
            held = "the embeddings; layers are on the host"
    per_pass = work.examples * work.sequences
    rows = [
        ("weights", size(found.weights), held if found.weights else "trained, see delta"),
        ("gathered", size(found.gathered), "layers in use, of which a process holds a part"),
        ("delta", size(found.delta), f"{found.trained:,} of {found.backbone:,} values, fp32"),
        ("gradients", size(found.gradients), "of the delta, fp32"),
        ("optimiser", size(found.optimizer), "two moments of AdamW, fp32"),
        (
            "activations",
            size(found.activations),
            f"of {per_pass} x {work.length} tokens"
            + (", one layer's computed again" if work.checkpointing else ""),
        ),
        ("peak", size(found.peak), "at one time; no sum, not all is there together"),
    ]
    if work.gpu:
        rows.append(("host", size(found.host), "memory of the host, for each process"))
    else:
        rows.insert(-1, ("copies", size(found.copies), "the best delta and what is put back"))
    rows = [row for row in rows if row[0] != "gathered" or found.gathered]
    head = table(("each process", "memory", "what it is"), rows)
    return f"{head}\n\nPython, its libraries and CUDA's context (about 1 GiB) come on top."
