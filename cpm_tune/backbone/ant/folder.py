"""Opens a CPM-Ant folder of any checkpoint format: native, the original (.pt), or Hugging Face's.

Reads config and vocabulary, no weight; imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpm_tune.backbone.ant.config import INSTEAD, CPMAntConfig
from cpm_tune.backbone.ant.layout import AntLayout, make_infilling, make_layout
from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.backbone.protocol import FolderDefaults, Infilling
from cpm_tune.backbone.storage.shard_index import check_shards
from cpm_tune.common.door import load
from cpm_tune.common.paths import input_sha256
from cpm_tune.common.reading import read_json
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Encoding

if TYPE_CHECKING:
    import torch

_VOCABULARIES = ("vocab.txt", "ant.txt")


@dataclass(frozen=True)
class CPMAntFolder(FolderDefaults):
    """What is in a CPM-Ant folder, before any weight is read.

    `format` is native, reference (the original one) or hf; `weights` are the files of tensors.
    """

    path: Path
    format: str
    config: CPMAntConfig
    weights: tuple[Path, ...]
    vocabulary: Path
    trained: bool
    settings = frozenset({"prompt_type", "segment"})

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

    def layout(self, encoding: Encoding, tokenizer: Tokenizer) -> AntLayout:
        """How sequences look; raise UserError for a prompt or segment that does not exist."""
        return make_layout(encoding, self.config, tokenizer)

    def infilling(self, tokenizer: Tokenizer) -> Infilling:
        """How texts with blanks look."""
        return make_infilling(self.config, tokenizer)

    def check_save(self, form: str) -> None:
        """Raise UserError if transformers' format cannot express this backbone."""
        if form == "hf":
            load("cpm_tune.backbone.ant.hugging_face:check_whole")(self.config, INSTEAD)

    def save(self, model: Any, path: Path, form: str, *, trained: bool) -> None:
        """Write the backbone into an empty folder: merged (native) or hf."""
        vocabulary = self.vocabulary.read_text(encoding="utf-8-sig")
        if form == "hf":
            load("cpm_tune.backbone.ant.hugging_face:save_hugging_face")(path, model, vocabulary)
        else:
            write = load("cpm_tune.backbone.ant.checkpoint:write_native")
            write(path, model, vocabulary, trained=trained)

    def open(self, dtype: torch.dtype, **how: Any) -> Any:
        """The CPMAnt in `dtype`, see `cpm_tune.backbone.protocol.CPMAntFolder.open`."""
        return load("cpm_tune.backbone.ant.loading:open_backbone")(self, dtype, **how)


def open_folder(path: Path) -> CPMAntFolder:
    """Open a CPM-Ant folder; raise UserError with what is missing."""
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
        form, patterns = "native", ["*.safetensors"]
    elif raw.get("model_type") == "cpmant":
        form, patterns = "hf", ["*.safetensors", "pytorch_model*.bin"]
    else:
        form, patterns = "reference", ["*.pt", "*.bin"]
    files = ([f for f in sorted(path.glob(pattern)) if f.is_file()] for pattern in patterns)
    weights = next(filter(None, files), [])
    if form == "hf":
        check_shards(path, weights)
    if not weights:
        raise UserError(f"{path}: no weights ({' or '.join(patterns)}) next to {file.name}.")
    if form == "reference" and len(weights) > 1:
        names = ", ".join(p.name for p in weights)
        raise UserError(
            f"{path}: several checkpoints ({names}); keep the one to use in the folder."
        )
    config, trained = CPMAntConfig.from_file(file), bool(raw.get("trained", True))
    return CPMAntFolder(path, form, config, tuple(weights), vocabulary, trained)
