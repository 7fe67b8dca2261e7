"""Opens a backbone folder: our own, the reference's (.pt) or Hugging Face's, whichever it is.

All weights come out folded (see `cpm_tune.backbone.model`), strictly checked, in one dtype.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cpm_tune.backbone.config import CPMAntConfig
from cpm_tune.backbone.shard_index import shard_index
from cpm_tune.backbone.tokenizer import Tokenizer
from cpm_tune.common.paths import input_sha256, read_json
from cpm_tune.errors import UserError

if TYPE_CHECKING:
    import torch

    from cpm_tune.backbone.model import CPMAnt

_VOCABULARIES = ("vocab.txt", "ant.txt")


@dataclass(frozen=True)
class BackboneFolder:
    """What is in a backbone folder, before any weight is read.

    `layout` is native, reference or hf; `weights` are the files that hold tensors.
    """

    path: Path
    layout: str
    config: CPMAntConfig
    weights: tuple[Path, ...]
    vocabulary: Path
    trained: bool

    @property
    def name(self) -> str:
        """The folder's name; for one in the hub's cache, that of the model."""
        if self.path.parent.name == "snapshots":
            return self.path.parent.parent.name.removeprefix("models--").replace("--", "/")
        return self.path.name

    def tokenizer(self) -> Tokenizer:
        """Read the vocabulary and check its size against the config."""
        tokenizer = Tokenizer.from_file(self.vocabulary)
        if len(tokenizer) != self.config.vocab_size:
            raise UserError(
                f"{self.vocabulary}: {len(tokenizer)} entries, but the config says vocab_size "
                f"{self.config.vocab_size}; use the vocabulary that belongs to this checkpoint."
            )
        return tokenizer

    def sha256(self) -> str:
        """Fingerprint of config, vocabulary and weight files."""
        digest = hashlib.sha256(json.dumps(self.config.to_dict(), sort_keys=True).encode())
        for path in (self.vocabulary, *self.weights):
            digest.update(bytes.fromhex(input_sha256(path)))
        return digest.hexdigest()


def open_folder(path: Path) -> BackboneFolder:
    """Recognise a backbone folder; raise UserError saying what is missing."""
    if not path.is_dir():
        raise UserError(f"backbone {path}: there is no such folder.")
    vocabulary = next((path / name for name in _VOCABULARIES if (path / name).is_file()), None)
    if vocabulary is None:
        inner = path / "backbone"  # of a pre-training run
        if any((inner / name).is_file() for name in _VOCABULARIES):
            raise UserError(f"{path}: not a backbone folder itself; give {inner}.")
        raise UserError(f"{path}: no vocabulary; put the checkpoint's ant.txt there as vocab.txt.")
    configs = [p for p in [path / "config.json", *sorted(path.glob("*.json"))] if p.is_file()]
    for file in configs:
        try:
            raw = read_json(file)
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: not valid JSON ({error}).") from error
        if isinstance(raw, dict) and ("dim_model" in raw or "hidden_size" in raw):
            break
    else:
        raise UserError(f"{path}: no CPM-Ant config (a .json file with dim_model or hidden_size).")
    if raw.get("format") == "cpm-tune":
        layout, patterns = "native", ["*.safetensors"]
    elif raw.get("model_type") == "cpmant":
        layout, patterns = "hf", ["*.safetensors", "pytorch_model*.bin"]
    else:
        layout, patterns = "reference", ["*.pt", "*.bin"]
    found = ([f for f in sorted(path.glob(pattern)) if f.is_file()] for pattern in patterns)
    weights = next(filter(None, found), [])
    if layout == "hf":
        shard_index(path, weights)
    if not weights:
        raise UserError(f"{path}: no weights ({' or '.join(patterns)}) beside {file.name}.")
    if layout == "reference" and len(weights) > 1:
        names = ", ".join(p.name for p in weights)
        raise UserError(
            f"{path}: several checkpoints ({names}); keep the one to use in the folder."
        )
    config = CPMAntConfig.from_file(file)
    trained = bool(raw.get("trained", True))
    return BackboneFolder(path, layout, config, tuple(weights), vocabulary, trained)


LayOut = Callable[["CPMAnt"], bool]  # gives a model without values memory, if it keeps parts


def load_weights(
    folder: BackboneFolder, dtype: torch.dtype, lay_out: LayOut | None = None
) -> CPMAnt:
    """Return the backbone with the folder's weights, folded, in `dtype` on the CPU.

    Where `lay_out` is given and true, it has made the model's parameters, of which every process
    may hold a part: tensors are then read from the (memory-mapped) files one at a time and only
    that part is kept. Raises UserError with what is missing, unexpected or of another shape.
    """
    import torch

    from cpm_tune.backbone.layouts import folded, pieces
    from cpm_tune.backbone.shards import fill

    model, state = _empty(folder.config, dtype), dict[str, torch.Tensor]()
    laid_out = lay_out is not None and lay_out(model)
    parts = dict(model.named_parameters()) if laid_out else {}
    for name, piece in pieces(folder).items():
        whole = folded(piece.values(), piece.divisor)
        state[name] = fill(parts[name], whole) if laid_out else whole.to(dtype)
        check_finite(folder.path, name, state[name])
    if not laid_out:
        model.load_state_dict(state, strict=True, assign=True)
    return model


def check_finite(path: Path, name: str, values: torch.Tensor) -> None:
    """Raise UserError if a weight has values that are no numbers."""
    if not is_finite(values):
        raise UserError(f"{path}: tensor {name} is not finite in {values.dtype}.")


def is_finite(values: torch.Tensor) -> bool:
    """Whether all values are numbers."""
    ends = values.aminmax() if values.numel() else ()  # 50 times as fast as isfinite in bf16
    return all(bool(end.isfinite()) for end in ends)


def _empty(config: CPMAntConfig, dtype: torch.dtype) -> CPMAnt:
    """A model without values."""
    import torch

    from cpm_tune.backbone.model import CPMAnt

    with torch.device("meta"):
        return CPMAnt(config).to(dtype)


def random_backbone(
    config: CPMAntConfig, seed: int, dtype: torch.dtype, lay_out: LayOut | None = None
) -> CPMAnt:
    """Return a backbone of that shape with random weights: the control for a trained one."""
    model = _empty(config, dtype)
    if lay_out is None or not lay_out(model):
        model.to_empty(device="cpu")
    return model.init_weights(seed)


def save_native(path: Path, model: CPMAnt, vocabulary: str, *, trained: bool) -> None:
    """Write a folder in our own layout: config.json, vocab.txt, model.safetensors (folded).

    Written beside and renamed, so that the folder is either complete or absent. Raises UserError
    if something is there already (but for an empty folder), or nothing can be written there.
    """
    import os
    import tempfile

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}).") from error
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        staged = Path(scratch) / "backbone"
        staged.mkdir()
        write_native(staged, model, vocabulary, trained=trained)
        try:
            os.replace(staged, path)
        except OSError as error:
            if not path.exists():
                raise
            raise UserError(f"{path}: is there already; give another folder.") from error


def write_native(folder: Path, model: CPMAnt, vocabulary: str, *, trained: bool) -> None:
    """Write the files of our own layout into an empty folder."""
    from cpm_tune.common.saved import write_tensors

    config = {"format": "cpm-tune", "trained": trained, **model.config.to_dict()}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (folder / "vocab.txt").write_text(vocabulary, encoding="utf-8")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    write_tensors(folder / "model.safetensors", state)
