"""Writes an encoder-decoder in Hugging Face's format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from cpm_tune.backbone.encdec.cpm2 import VOCABULARY
from cpm_tune.backbone.encdec.folder import EncDecFolder
from cpm_tune.backbone.encdec.loading import THEIRS
from cpm_tune.backbone.hf_folder import CONFIG, raw_config
from cpm_tune.common.saved import write_tensors

_ABOUT = ("tokenizer_config.json", "special_tokens_map.json", "tokenizer.json")


def save(folder: EncDecFolder, model: Any, path: Path, *, trained: bool) -> None:
    """Write `model`, an EncDec opened from `folder`, with that folder's config and vocabulary."""
    _write_weights(model, path)
    write_about(folder, path, next(model.parameters()).dtype, trained=trained)


def write(model: Any, vocabulary: Path, path: Path) -> None:
    """Write `model`, an EncDec of CPM-2's form, with its vocabulary into an empty folder."""
    _write_weights(model, path)
    kind = str(next(model.parameters()).dtype).removeprefix("torch.")
    values = {**model.config.values, "torch_dtype": kind}
    (path / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(vocabulary, path / VOCABULARY)


def _write_weights(model: Any, path: Path) -> None:
    state = {THEIRS.get(n, n): t.detach().contiguous() for n, t in model.state_dict().items()}
    write_tensors(path / "model.safetensors", state, {"format": "pt"})


def write_about(folder: EncDecFolder, path: Path, dtype: torch.dtype, *, trained: bool) -> None:
    """Write a folder's config and vocabulary in Hugging Face's format, for weights of a dtype."""
    kind = str(dtype).removeprefix("torch.")
    values = {**raw_config(folder.path), **folder.config.values, "torch_dtype": kind}
    for name in ("dtype", "cpm_tune_trained"):
        values.pop(name, None)
    if not trained:
        values["cpm_tune_trained"] = False
    (path / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    for file in (folder.vocabulary, *(folder.path / name for name in _ABOUT)):
        if file.is_file():
            shutil.copyfile(file, path / file.name)
