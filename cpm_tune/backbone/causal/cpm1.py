"""CPM-1's folders: the files of model-parallel ranks, or Hugging Face's format. Imports no torch.

Hugging Face's config.json of TsinghuaAI/CPM-Generate has bos and eos outside the vocabulary and
another pad: they are put right here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpm_tune.backbone.causal.cpm1_tokenizer import FILES, PUBLISHED, find_model
from cpm_tune.backbone.ranks.files import rank_files
from cpm_tune.common.door import load
from cpm_tune.errors import UserError

TOKENIZER_CLASS = "CpmTokenizer"
SPECIALS = {
    "bos_token_id": PUBLISHED["<eod>"],
    "eos_token_id": PUBLISHED["<eod>"],
    "pad_token_id": PUBLISHED["<pad>"],
}


def read_ranks(folder: Path, given: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """The values of a config.json for the files of ranks, and these files.

    `given`: the values of a config.json in the folder; only its `n_head` counts, for a size that
    was not published. Raises UserError for broken files.
    """
    shape, weights = load("cpm_tune.backbone.causal.megatron:read_checkpoint")(folder)
    dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    heads = given.get("n_head")
    try:
        values: dict[str, Any] = load("cpm_tune.backbone.causal.megatron:gpt2_config")(
            shape, heads if isinstance(heads, int) else None, dtype
        )
    except UserError as error:
        raise UserError(f'{folder}: {error} (config.json: {{"n_head": N}})') from error
    return values, rank_files(folder)


def rank_vocabulary(folder: Path) -> Path:
    """The sentencepiece model of a folder of ranks, in it or beside the folder of an iteration."""
    for place in (folder, folder.parent):
        if (file := find_model(place)) is not None:
            return file
    raise UserError(
        f"{folder}: no vocabulary; put CPM-1's sentencepiece model there, as {FILES[0]}."
    )


def hf_vocabulary(folder: Path, values: Mapping[str, Any], about: Mapping[str, Any]) -> Path | None:
    """The sentencepiece model of a CPM-1 in Hugging Face's format; None for another model.

    `about`: the values of tokenizer_config.json.
    """
    named = str(about.get("tokenizer_class", "")).startswith("Cpm")
    own = (folder / "tokenizer.json").is_file() and not named
    if values.get("model_type") != "gpt2" or own:
        return None
    return find_model(folder)
