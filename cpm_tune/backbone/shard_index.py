"""The index of a sharded Hugging Face folder: which shard should hold which tensor."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cpm_tune.common.reading import read_json
from cpm_tune.common.sizes import counted
from cpm_tune.errors import UserError

# By the kind of weights: the index, and the one file that transformers prefers to shards.
_NAMES = {
    ".safetensors": ("model.safetensors.index.json", "model.safetensors"),
    ".bin": ("pytorch_model.bin.index.json", "pytorch_model.bin"),
}


@dataclass(frozen=True)
class ShardIndex:
    """An index file: `shards` by the name of the tensor."""

    path: Path
    shards: dict[str, str]

    def check_tensors(self, names: Collection[str]) -> None:
        """Raise UserError if a tensor of the index is in no shard."""
        absent = [name for name in self.shards if name not in names]
        if absent:
            raise UserError(
                f"{self.path}: tensor {absent[0]} should be in {self.shards[absent[0]]}, but is in "
                f"no shard ({counted(len(absent), 'tensor')} in all); get the shards again."
            )


def shard_index(folder: Path, weights: Sequence[Path]) -> ShardIndex | None:
    """Read the index that belongs to weight files; None if they have none, or need none.

    Raises UserError for an index that cannot be read, or that names a shard which is not among the
    files.
    """
    kinds = dict.fromkeys(file.suffix for file in weights) or _NAMES
    there = {file.name for file in weights}
    for kind in kinds:
        name, alone = _NAMES[kind]
        if alone not in there and (folder / name).is_file():
            break
    else:
        return None
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
    return ShardIndex(path, shards)
