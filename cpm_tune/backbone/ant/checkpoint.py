"""Reads a backbone's weights from a folder of any format, draws random ones, writes native folders.

All weights come out folded (see `cpm_tune.backbone.ant.model`), strictly checked, in one dtype.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from cpm_tune.backbone.ant.folder import PLUS, CPMAntFolder
from cpm_tune.backbone.ant.formats import folded, pieces
from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.backbone.opening import read_backbone
from cpm_tune.backbone.protocol import Materialise
from cpm_tune.common.folders import new_folder
from cpm_tune.common.saved import write_tensors


def load_weights(
    folder: CPMAntFolder,
    dtype: torch.dtype,
    materialise: Materialise | None = None,
    device: torch.device | str = "cpu",
) -> CPMAnt:
    """Return the backbone with the folder's weights, folded, in `dtype`.

    `materialise`, `device`: see `read_backbone`. Raises UserError with what is missing,
    unexpected or of another shape.
    """
    tensors = ((n, folded(p.values(), p.divisor)) for n, p in pieces(folder).items())
    model: CPMAnt = read_backbone(folder.config, tensors, dtype, folder.path, materialise, device)
    return model


def save_native(path: Path, model: CPMAnt, vocabulary: str, *, trained: bool) -> None:
    """Write a native folder, atomically: config.json, vocab.txt, model.safetensors (folded).

    Raises UserError if `path` exists (unless it is an empty folder), or cannot be written.
    """
    with new_folder(path, "") as part:
        write_native(part, model, vocabulary, trained=trained)


def write_native(
    folder: Path, model: CPMAnt, vocabulary: str, *, trained: bool, plus: bool = False
) -> None:
    """Write the files of a native backbone into an empty folder. `plus`: a CPM-Ant+."""
    config = {"format": "cpm-tune", "trained": trained, **model.config.to_dict()}
    if plus:
        config["tokenizer"] = PLUS
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (folder / "vocab.txt").write_text(vocabulary, encoding="utf-8")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    write_tensors(folder / "model.safetensors", state)
