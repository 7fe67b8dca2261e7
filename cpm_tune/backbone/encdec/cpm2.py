"""CPM-2's folders: the files of model-parallel ranks. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cpm_tune.backbone.encdec.cpm2_tokenizer import CPM2Tokenizer
from cpm_tune.backbone.ranks.files import rank_files
from cpm_tune.common.door import load
from cpm_tune.common.sizes import counted
from cpm_tune.errors import UserError

VOCABULARY = "vocab.txt"


def read_ranks(folder: Path, vocabulary: Path) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """The values of a config.json for the files of ranks, and these files.

    The token that ends generated texts is the vocabulary's. Raises UserError for broken files, and
    for a vocabulary of another size.
    """
    sizes, weights = load("cpm_tune.backbone.encdec.cpm2_ranks:read_checkpoint")(folder)
    dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    values: dict[str, Any] = load("cpm_tune.backbone.encdec.cpm2_ranks:mt5_config")(sizes, dtype)
    files, tokenizer = rank_files(folder), CPM2Tokenizer.from_file(vocabulary)
    if len(tokenizer) > sizes.vocabulary:
        raise UserError(
            f"{folder}: {counted(len(files), 'rank')} with {sizes.vocabulary} rows of the "
            f"vocabulary, but {vocabulary.name} has {len(tokenizer)} entries; a rank's file is "
            "missing, or it is another model's vocabulary."
        )
    _check_size(tokenizer, vocabulary, sizes.vocabulary)
    return {**values, "eos_token_id": tokenizer.eos}, files


def read_vocabulary(file: Path, rows: int) -> CPM2Tokenizer:
    """Read a vocab.txt; raise UserError if it is not that of a model with so many rows."""
    tokenizer = CPM2Tokenizer.from_file(file)
    _check_size(tokenizer, file, rows)
    return tokenizer


def _check_size(tokenizer: CPM2Tokenizer, file: Path, rows: int) -> None:
    if len(tokenizer) != rows:
        raise UserError(
            f"{file}: {len(tokenizer)} entries, but the model has {rows}; use the vocabulary that "
            "belongs to it."
        )


def rank_vocabulary(folder: Path) -> Path:
    """The vocabulary of a folder of ranks, in it or next to the folder of an iteration."""
    for place in (folder, folder.parent):
        if (file := place / VOCABULARY).is_file():
            return file
    raise UserError(
        f"{folder}: no vocabulary; put CPM-2's vocab.txt there (Chinese: bpe_cn/vocab.txt of "
        "CPM-2-Finetune, Chinese-English: bpe_cn_en/vocab.txt)."
    )
