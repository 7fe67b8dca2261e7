"""The command `convert`."""

from __future__ import annotations

from cpm_tune.backbone.ant import convert
from cpm_tune.backbone.ant.hugging_face import READ_BY
from cpm_tune.backbone.bundled import resolve
from cpm_tune.backbone.families import open_ant
from cpm_tune.commands.options.backbone import Convert
from cpm_tune.common.sizes import parse_size
from cpm_tune.engine.device import DTYPES


def run(options: Convert) -> int:
    """Write a backbone in another checkpoint format, print its files."""
    folder = open_ant(resolve(options.source), "convert")
    convert.convert(
        folder,
        options.out,
        options.to,
        dtype=None if options.dtype is None else DTYPES[options.dtype],
        max_shard=parse_size(options.max_shard_size, "--max-shard-size"),
        overwrite=options.overwrite,
    )
    print(f"read       {folder.path}  ({folder.format})")
    for path in sorted(options.out.iterdir()):
        print(f"written    {path}  {path.stat().st_size:,} bytes")
    if options.to == "hf":
        print(f"read by    {READ_BY}")
    return 0
