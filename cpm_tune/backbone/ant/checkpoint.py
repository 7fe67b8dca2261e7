"""Reads a backbone's weights from a folder of any format, draws random ones, writes native folders.

All weights come out folded (see `cpm_tune.backbone.ant.model`), strictly checked, in one dtype.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.folder import PLUS, BackboneFolder
from cpm_tune.backbone.ant.formats import folded, pieces
from cpm_tune.backbone.ant.model import CPMAnt, skeleton
from cpm_tune.backbone.storage.shards import fill
from cpm_tune.common.folders import new_folder
from cpm_tune.common.saved import write_tensors
from cpm_tune.errors import UserError

Materialise = Callable[[CPMAnt], bool]  # gives a model without values memory, if it keeps parts


def load_weights(
    folder: BackboneFolder, dtype: torch.dtype, materialise: Materialise | None = None
) -> CPMAnt:
    """Return the backbone with the folder's weights, folded, in `dtype` on the CPU.

    If `materialise` is given and true, it has made the model's parameters, of which every process
    may have a part: tensors are then read from the (memory-mapped) files one at a time and only
    that part is kept. Raises UserError with what is missing, unexpected or of another shape.
    """
    model, state = skeleton(folder.config).to(dtype), dict[str, torch.Tensor]()
    in_parts = materialise is not None and materialise(model)
    parameters = dict(model.named_parameters()) if in_parts else {}
    for name, piece in pieces(folder).items():
        whole = folded(piece.values(), piece.divisor)
        state[name] = fill(parameters[name], whole) if in_parts else whole.to(dtype)
        check_finite(folder.path, name, state[name])
    if not in_parts:
        model.load_state_dict(state, strict=True, assign=True)
    return model


def check_finite(path: Path, name: str, values: torch.Tensor) -> None:
    """Raise UserError if a weight contains NaN or infinity."""
    if not is_finite(values):
        raise UserError(f"{path}: tensor {name} is not finite in {values.dtype}.")


def is_finite(values: torch.Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    ends = values.aminmax() if values.numel() else ()  # 50 times as fast as isfinite in bf16
    return all(bool(end.isfinite()) for end in ends)


def random_backbone(
    config: CPMAntConfig, seed: int, dtype: torch.dtype, materialise: Materialise | None = None
) -> CPMAnt:
    """Return a backbone of that shape with random weights: the control for a trained one."""
    model = skeleton(config).to(dtype)
    if materialise is None or not materialise(model):
        model.to_empty(device="cpu")
    return model.init_weights(seed)


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
