"""The command `convert`."""

from __future__ import annotations

from cpm_tune.backbone.bundled import resolve
from cpm_tune.backbone.families import open_folder
from cpm_tune.commands.options.backbone import Convert
from cpm_tune.common.sizes import parse_size
from cpm_tune.engine.device import DTYPES


def run(options: Convert) -> int:
    """Write a backbone in another checkpoint format, print its files."""
    folder = open_folder(resolve(options.source))
    read_by = folder.convert(
        options.out,
        options.to,
        dtype=None if options.dtype is None else DTYPES[options.dtype],
        max_shard=parse_size(options.max_shard_size, "--max-shard-size"),
        ranks=options.ranks,
        overwrite=options.overwrite,
    )
    print(f"read       {folder.path}  ({folder.format})")
    for path in sorted(path for path in options.out.rglob("*") if path.is_file()):
        print(f"written    {path}  {path.stat().st_size:,} bytes")
    if read_by:
        print(f"read by    {read_by}")
    return 0
