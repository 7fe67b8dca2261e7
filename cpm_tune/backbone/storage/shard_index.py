"""The index of a sharded Hugging Face folder: which shard should hold which tensor."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from cpm_tune.common.reading import read_json
from cpm_tune.common.sizes import counted
from cpm_tune.errors import UserError

# By the kind of weights: the index, and the one file that transformers prefers to shards.
_NAMES = {
    ".safetensors": ("model.safetensors.index.json", "model.safetensors"),
    ".bin": ("pytorch_model.bin.index.json", "pytorch_model.bin"),
}


def check_shards(
    folder: Path,
    weights: Sequence[Path],
    tensors: Collection[str] | None = None,
    without: re.Pattern[str] | None = None,
) -> None:
    """Check weight files, and the names of their tensors if given, against their index, if any;
    names that `without` finds may lack.

    Raises UserError for an index that cannot be read, that names a shard which is not among the
    files, or a tensor which is in no shard.
    """
    kinds = dict.fromkeys(file.suffix for file in weights) or _NAMES
    there = {file.name for file in weights}
    for kind in kinds:
        name, alone = _NAMES[kind]
        if alone not in there and (folder / name).is_file():
            break
    else:
        return
    path = folder / name
    try:
        shards = read_json(path)["weight_map"]
        if not all(isinstance(shard, str) for shard in shards.values()):
            raise TypeError("a shard is not a text")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not a readable index, expected weight_map with the shard of each tensor "
            f"({type(error).__name__}: {error}); get it again."
        ) from error
    named = set(shards.values())
    absent = sorted(named - there)
    if absent:
        raise UserError(
            f"{path}: names the shard {absent[0]}, which is not in the folder "
            f"({len(absent)} of {len(named)} missing); get it, too."
        )
    needed = [name for name in shards if without is None or not without.search(name)]
    lost = [] if tensors is None else [name for name in needed if name not in tensors]
    if lost:
        raise UserError(
            f"{path}: tensor {lost[0]} should be in {shards[lost[0]]}, but is in no shard "
            f"({counted(len(lost), 'tensor')} in all); get the shards again."
        )
