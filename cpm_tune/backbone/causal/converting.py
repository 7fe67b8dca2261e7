"""Converts CPM-1 between the files of model-parallel ranks and Hugging Face's format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from cpm_tune.backbone.causal.cpm1 import TOKENIZER_CLASS
from cpm_tune.backbone.causal.folder import CausalFolder
from cpm_tune.backbone.causal.megatron import read_checkpoint, write_checkpoint
from cpm_tune.backbone.hf_folder import CONFIG
from cpm_tune.backbone.ranks.reading import Weight
from cpm_tune.backbone.storage.finite import check_finite
from cpm_tune.backbone.storage.stored import stored_tensors
from cpm_tune.common.folders import new_folder
from cpm_tune.common.saved import write_tensors
from cpm_tune.errors import UserError

_PREFIX = "transformer."


def convert(
    folder: CausalFolder, out: Path, to: str, *, dtype: torch.dtype | None, overwrite: bool
) -> None:
    """Write a CPM-1 to a new folder: hf, or reference (ranks, one). Values keep their bits, or are
    converted to `dtype`.

    Raises UserError for another model, another format, and what `new_folder` refuses.
    """
    if folder.vocabulary is None:
        raise UserError(
            f"{folder.path}: of causal language models convert takes CPM-1's alone; others are in "
            "Hugging Face's format already."
        )
    if to not in ("hf", "reference"):
        raise UserError(f"--to {to} is CPM-Ant's own format; use --to hf or --to reference.")
    if out.resolve() == folder.path.resolve():
        raise UserError(f"{out} is the folder to convert; choose another path.")
    with new_folder(out, "", overwrite=overwrite) as part:
        weights = _weights(folder, dtype)
        values = folder.config.values
        if to == "reference":
            write_checkpoint(part, weights, int(values["n_head"]), 1)
            (part / CONFIG).write_text(json.dumps({"n_head": values["n_head"]}) + "\n")
            shutil.copyfile(folder.vocabulary, part / "chinese_vocab.model")
        else:
            state = {name: weight.whole() for name, weight in weights.items()}
            write_tensors(part / "model.safetensors", state, {"format": "pt"})
            kind = next(iter(weights.values())).dtype
            write_about(part, values, folder.vocabulary, kind)


def write_about(folder: Path, values: dict[str, Any], vocabulary: Path, dtype: torch.dtype) -> None:
    """Write a CPM-1's config and tokenizer in Hugging Face's format."""
    about = {"torch_dtype": str(dtype).removeprefix("torch."), "tie_word_embeddings": True}
    values = {"architectures": ["GPT2LMHeadModel"], **values, **about}
    (folder / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    tokens = {"bos_token": "<eod>", "eos_token": "<eod>", "pad_token": "<pad>"}
    text = json.dumps({"tokenizer_class": TOKENIZER_CLASS, **tokens}, indent=2)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
    shutil.copyfile(vocabulary, folder / "spiece.model")


def _weights(folder: CausalFolder, dtype: torch.dtype | None) -> dict[str, Weight]:
    """GPT-2's weights of a folder by transformers' names, read when they are asked for."""
    if folder.format == "mp_rank":
        weights = list(read_checkpoint(folder.path)[1].values())
    else:
        weights = [
            Weight(_named(stored.name), stored.shape, stored.dtype, stored.whole)
            for stored in stored_tensors(folder.weights)
            if not stored.name.endswith((".attn.bias", ".attn.masked_bias", "lm_head.weight"))
        ]

    def checked(weight: Weight) -> Weight:
        def whole() -> torch.Tensor:
            tensor = weight.whole()
            check_finite(folder.path, weight.name, tensor)
            return tensor.to(dtype or tensor.dtype)

        return Weight(weight.name, weight.shape, dtype or weight.dtype, whole)

    return {weight.name: checked(weight) for weight in weights}


def _named(name: str) -> str:
    return name if name.startswith(_PREFIX) else _PREFIX + name
