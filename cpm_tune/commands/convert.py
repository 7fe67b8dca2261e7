"""The command `convert`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cpm_tune.commands.arguments import make_parser


def convert(argv: Sequence[str], prog: str) -> int:
    """`convert SRC DST --to LAYOUT`."""
    from cpm_tune.common.sizes import parse_size

    p = make_parser(
        f"{prog} convert",
        "Write a backbone folder in another layout: the reference's (.pt), Hugging Face's or\n"
        "our own (safetensors). A part of a tensor is in memory at a time. A round trip gives the\n"
        "same bits, unless --dtype changes them.",
        f"examples:\n  {prog} convert cpm-ant-tiny tiny-hf --to hf\n"
        f"  {prog} convert tiny-hf tiny-reference --to reference\n"
        f"  {prog} convert cpm-ant-tiny tiny-bf16 --to native --dtype bf16",
    )
    p.add_argument("source", metavar="SRC", help="a backbone: name, folder, or hub:OWNER/NAME")
    p.add_argument("out", metavar="DST", type=Path, help="a new folder")
    p.add_argument("--to", choices=["reference", "hf", "native"], required=True)
    p.add_argument("--dtype", choices=["fp32", "bf16", "fp16"], help="default: each tensor's own")
    p.add_argument(
        "--max-shard-size", metavar="SIZE", default="5GB", help="of a file, for hf (default: 5GB)"
    )
    p.add_argument("--overwrite", action="store_true", help="replace a backbone folder at DST")
    args = p.parse_args(argv)
    most = parse_size(args.max_shard_size, "--max-shard-size")
    from cpm_tune.backbone.bundled import resolve
    from cpm_tune.backbone.convert import convert as write
    from cpm_tune.backbone.folder import open_folder
    from cpm_tune.engine.device import DTYPES

    folder = open_folder(resolve(args.source))
    dtype, overwrite = DTYPES.get(args.dtype), args.overwrite
    try:
        write(folder, args.out, args.to, dtype=dtype, max_shard=most, overwrite=overwrite)
    except KeyboardInterrupt as stop:
        stop.args = ("nothing was written",)
        raise
    print(f"read       {folder.path}  ({folder.format})")
    for path in sorted(args.out.iterdir()):
        print(f"written    {path}  {path.stat().st_size:,} bytes")
    return 0
