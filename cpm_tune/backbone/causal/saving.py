"""Writes a causal language model in Hugging Face's format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from cpm_tune.backbone.causal.architecture import quiet
from cpm_tune.backbone.causal.converting import write_about
from cpm_tune.backbone.causal.folder import CausalFolder
from cpm_tune.backbone.causal.split import joined
from cpm_tune.backbone.causal.tokenizer import FILES
from cpm_tune.backbone.hf_folder import CONFIG, raw_config


def save(folder: CausalFolder, model: Any, path: Path, *, trained: bool) -> None:
    """Write `model`, a CausalLM opened from `folder`, with that folder's config and tokenizer."""
    if folder.vocabulary is not None:
        write(model, folder.vocabulary, path, trained=trained)
        return
    _write_weights(model, path)
    values = raw_config(folder.path)
    for key in ("torch_dtype", "dtype"):
        if key in values:
            values[key] = str(next(model.parameters()).dtype).removeprefix("torch.")
    values.pop("cpm_tune_trained", None)
    if not trained:
        values["cpm_tune_trained"] = False
    (path / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    for name in (*FILES, "chat_template.jinja"):
        if (folder.path / name).is_file():
            shutil.copyfile(folder.path / name, path / name)


def write(model: Any, vocabulary: Path, path: Path, *, trained: bool = True) -> None:
    """Write `model`, a CausalLM of CPM-1's form, with its vocabulary into an empty folder."""
    _write_weights(model, path)
    values = model.config.values | ({} if trained else {"cpm_tune_trained": False})
    write_about(path, values, vocabulary, next(model.parameters()).dtype)


def _write_weights(model: Any, path: Path) -> None:
    with quiet():
        model.model.save_pretrained(path, state_dict=joined(model.model))
    (path / "generation_config.json").unlink(missing_ok=True)
    mode = (path / CONFIG).stat().st_mode
    for file in path.iterdir():  # transformers lets only the owner read weights
        file.chmod(mode)
