"""The command `convert`."""

from __future__ import annotations

from cpm_tune.backbone.ant import convert
from cpm_tune.backbone.ant.hugging_face import READ_BY
from cpm_tune.backbone.bundled import resolve
from cpm_tune.backbone.causal.folder import CausalFolder
from cpm_tune.backbone.families import open_ant, open_folder
from cpm_tune.commands.options.backbone import Convert
from cpm_tune.common.door import load
from cpm_tune.common.sizes import parse_size
from cpm_tune.engine.device import DTYPES


def run(options: Convert) -> int:
    """Write a backbone in another checkpoint format, print its files."""
    folder, read_by = open_folder(resolve(options.source)), ""
    dtype = None if options.dtype is None else DTYPES[options.dtype]
    if isinstance(folder, CausalFolder):
        load("cpm_tune.backbone.causal.converting:convert")(
            folder, options.out, options.to, dtype=dtype, overwrite=options.overwrite
        )
    else:
        convert.convert(
            open_ant(folder.path, "convert"),
            options.out,
            options.to,
            dtype=dtype,
            max_shard=parse_size(options.max_shard_size, "--max-shard-size"),
            overwrite=options.overwrite,
        )
        read_by = READ_BY
    print(f"read       {folder.path}  ({folder.format})")
    for path in sorted(options.out.iterdir()):
        print(f"written    {path}  {path.stat().st_size:,} bytes")
    if options.to == "hf" and read_by:
        print(f"read by    {read_by}")
    return 0
