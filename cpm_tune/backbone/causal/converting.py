"""Converts CPM-1 between the files of model-parallel ranks and Hugging Face's format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cpm_tune.backbone.causal.cpm1 import TOKENIZER_CLASS
from cpm_tune.backbone.causal.folder import CausalFolder
from cpm_tune.backbone.causal.loading import masks_in
from cpm_tune.backbone.causal.megatron import read_checkpoint, write_checkpoint
from cpm_tune.backbone.hf_folder import CONFIG
from cpm_tune.backbone.ranks.converting import Convertible
from cpm_tune.backbone.ranks.reading import Weight
from cpm_tune.backbone.storage.stored import stored_tensors
from cpm_tune.errors import UserError

_PREFIX = "transformer."


def convertible(folder: CausalFolder) -> Convertible:
    """A CPM-1, to be written in both formats. Raises UserError for another model."""
    vocabulary = folder.vocabulary
    if vocabulary is None:
        raise UserError(
            f"{folder.path}: of causal language models convert takes CPM-1's alone; others are in "
            "Hugging Face's format already."
        )
    values = folder.config.values

    def write_ranks(part: Path, weights: Mapping[str, Weight], n: int) -> None:
        write_checkpoint(part, weights, int(values["n_head"]), n)
        (part / CONFIG).write_text(json.dumps({"n_head": values["n_head"]}) + "\n")
        shutil.copyfile(vocabulary, part / "chinese_vocab.model")

    def about(part: Path, dtype: torch.dtype) -> None:
        write_about(part, values, vocabulary, dtype)

    return Convertible(folder.path, _weights(folder), write_ranks, about)


def write_about(folder: Path, values: dict[str, Any], vocabulary: Path, dtype: torch.dtype) -> None:
    """Write a CPM-1's config and tokenizer in Hugging Face's format."""
    about = {"torch_dtype": str(dtype).removeprefix("torch."), "tie_word_embeddings": True}
    values = {"architectures": ["GPT2LMHeadModel"], **values, **about}
    (folder / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    tokens = {"bos_token": "<eod>", "eos_token": "<eod>", "pad_token": "<pad>"}
    text = json.dumps({"tokenizer_class": TOKENIZER_CLASS, **tokens}, indent=2)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
    shutil.copyfile(vocabulary, folder / "spiece.model")


def _weights(folder: CausalFolder) -> list[Weight]:
    """GPT-2's weights of a folder by transformers' names, read when they are asked for."""
    if folder.format == "mp_rank":
        return list(read_checkpoint(folder.path)[1].values())
    return [
        Weight(_named(stored.name), stored.shape, stored.dtype, stored.whole)
        for stored in stored_tensors(folder.weights, masks_in(folder))
        if not stored.name.endswith((".attn.bias", ".attn.masked_bias", "lm_head.weight"))
    ]


def _named(name: str) -> str:
    return name if name.startswith(_PREFIX) else _PREFIX + name
