"""What folders in Hugging Face's format have in common: config.json and files of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cpm_tune.backbone.storage.shard_index import check_shards
from cpm_tune.common.reading import read_json
from cpm_tune.errors import UserError

CONFIG = "config.json"
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


def raw_config(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    """The values of a folder's config.json, or none if there is no such file.

    Raises UserError for a file that is not a JSON object.
    """
    file = folder / name
    if not file.is_file():
        return {}
    try:
        values = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not valid JSON ({error}).") from error
    if not isinstance(values, dict):
        raise UserError(f"{file}: not a JSON object.")
    return values


def weight_files(folder: Path) -> tuple[Path, ...]:
    """A folder's files of weights: safetensors, or else those of torch.save; one file, or else all
    shards. Raises UserError if there are none, or a shard is missing."""
    found = ([f for f in sorted(folder.glob(p)) if f.is_file()] for p in _WEIGHTS)
    weights = next(filter(None, found), [])
    check_shards(folder, weights)
    if not weights:
        raise UserError(f"{folder}: no weights ({' or '.join(_WEIGHTS)}) next to {CONFIG}.")
    single = [file for file in weights if file.stem in ("model", "pytorch_model")]
    return tuple(single or weights)
