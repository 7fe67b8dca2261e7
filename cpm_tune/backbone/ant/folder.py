"""Opens a CPM-Ant folder of any checkpoint format: native, the original (.pt), or Hugging Face's.

Reads config and vocabulary, no weight; imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cpm_tune.backbone.ant.config import INSTEAD, CPMAntConfig
from cpm_tune.backbone.ant.layout import AntLayout, make_infilling, make_layout
from cpm_tune.backbone.ant.tokenizer import PlusTokenizer, Tokenizer
from cpm_tune.backbone.protocol import Infilling, folder_name, no_chat
from cpm_tune.backbone.storage.shard_index import check_shards
from cpm_tune.backbone.tokens import Turns
from cpm_tune.common.door import load
from cpm_tune.common.folders import DELTA_CONFIG, RECORD
from cpm_tune.common.paths import input_sha256
from cpm_tune.common.reading import read_json
from cpm_tune.errors import UserError, absent
from cpm_tune.schema.spec import Encoding

if TYPE_CHECKING:
    import torch

PLUS = "ant-plus"  # the tokenizer in a config.json of ours
_PLUS = "ant_plus.txt"
_VOCABULARIES = ("vocab.txt", "ant.txt", _PLUS)
_EXPECTED = (
    "expected a causal language model of transformers, a T5, mT5 or CPM-2, or a CPM-Ant: "
    "model_type cpmant, format cpm-tune or, in the original format, dim_model in its config"
)
# What a folder without CPM-Ant's config is, by a file in it.
_OTHERS = (
    (RECORD, "a run, not a backbone; pass the backbone it was tuned on"),
    (DELTA_CONFIG, "a delta, not a backbone; pass it as --delta-from"),
    ("adapter_config.json", "an adapter of PEFT's, not a backbone; pass it as --delta-from"),
    ("latest_checkpointed_iteration.txt", f"a checkpoint of CPM-1 or CPM-2; {_EXPECTED}"),
    (
        "*/mp_rank_00_model_states.pt",
        "it contains a folder with the ranks of CPM-1 or CPM-2; give that folder",
    ),
    ("mp_rank_00_model_states.pt", f"a checkpoint of CPM-1 or CPM-2; {_EXPECTED}"),
    ("*.gguf", f"weights of llama.cpp; {_EXPECTED}"),
)


@dataclass(frozen=True)
class CPMAntFolder:
    """What is in a CPM-Ant folder, before any weight is read.

    `format` is native, reference (the original one) or hf; `weights` are the files of tensors.
    `plus`: its text is cut as CPM-Ant+'s.
    """

    path: Path
    format: str
    config: CPMAntConfig
    weights: tuple[Path, ...]
    vocabulary: Path
    trained: bool
    plus: bool = False
    settings: ClassVar = {"prompt_type": 2, "segment": 2}

    @property
    def name(self) -> str:
        return folder_name(self.path)

    def tokenizer(self) -> Tokenizer:
        """Read the vocabulary and check its size against the config."""
        tokenizer = (PlusTokenizer if self.plus else Tokenizer).from_file(self.vocabulary)
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
        if self.plus:
            digest.update(_PLUS.encode())
        return digest.hexdigest()

    def layout(self, encoding: Encoding, tokenizer: Tokenizer) -> AntLayout:
        """How sequences look; raise UserError for a prompt or segment that does not exist."""
        return make_layout(encoding, self.config, tokenizer)

    def infilling(self, tokenizer: Tokenizer) -> Infilling:
        """How texts with blanks look."""
        return make_infilling(self.config, tokenizer)

    def chat_template(self) -> str:
        """None: raise UserError."""
        raise no_chat(self.path, self.config.family)

    def turns(self, template: str, tokenizer: Tokenizer) -> Turns:
        """None: raise UserError."""
        raise no_chat(self.path, self.config.family)

    def check_save(self, form: str) -> None:
        """Raise UserError if transformers' format cannot express this backbone."""
        if form == "hf":
            load("cpm_tune.backbone.ant.hugging_face:check_whole")(self.config, INSTEAD)

    def save(self, model: Any, path: Path, form: str, *, trained: bool) -> str:
        """Write the backbone into an empty folder: merged (native) or hf."""
        vocabulary, plus = self.vocabulary.read_text(encoding="utf-8-sig"), self.plus
        if form == "hf":
            save = load("cpm_tune.backbone.ant.hugging_face:save_hugging_face")
            save(path, model, vocabulary, plus=plus)
            return str(load("cpm_tune.backbone.ant.hugging_face:READ_BY"))
        write = load("cpm_tune.backbone.ant.checkpoint:write_native")
        write(path, model, vocabulary, trained=trained, plus=plus)
        return ""

    def convert(self, out: Path, to: str, *, ranks: int = 1, **how: Any) -> str:
        """Write the folder in the format `to`, see `cpm_tune.backbone.ant.convert`."""
        if ranks != 1:
            raise UserError("--ranks: CPM-Ant's formats have no ranks; omit the option.")
        load("cpm_tune.backbone.ant.convert:convert")(self, out, to, **how)
        read_by: str = load("cpm_tune.backbone.ant.hugging_face:READ_BY")
        return read_by if to == "hf" else ""

    def open(self, dtype: torch.dtype, **how: Any) -> Any:
        """The CPMAnt in `dtype`, see `cpm_tune.backbone.protocol.BackboneFolder.open`."""
        return load("cpm_tune.backbone.ant.loading:open_backbone")(self, dtype, **how)


def open_folder(path: Path) -> CPMAntFolder:
    """Open a CPM-Ant folder; raise UserError with what is missing."""
    if not path.is_dir():
        raise UserError(f"backbone {path}: {absent(path)}.")
    file, raw = _config(path)
    vocabulary = next((path / name for name in _VOCABULARIES if (path / name).is_file()), None)
    if vocabulary is None:
        inner = path / "backbone"  # of a pre-training run
        if any((inner / name).is_file() for name in _VOCABULARIES):
            raise UserError(f"{path}: not a backbone folder itself; give {inner}.")
        if file is None:
            raise UserError(
                f"{path}: not a backbone: it has neither a config.json of a known model nor "
                "CPM-Ant's vocabulary; list backbones shows the families that are known."
            )
        raise UserError(f"{path}: no vocabulary; put the checkpoint's ant.txt there as vocab.txt.")
    if file is None:
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
    plus = raw.get("tokenizer") == PLUS or vocabulary.name == _PLUS or _has_spaces(vocabulary)
    return CPMAntFolder(path, form, config, tuple(weights), vocabulary, trained, plus)


def looks_like_ant(path: Path) -> bool:
    """Whether a folder has a config of CPM-Ant's and a vocabulary."""
    try:
        file, raw = _config(path)
    except UserError:
        return False
    ours = "dim_model" in raw or raw.get("model_type") == "cpmant"
    return file is not None and ours and any((path / name).is_file() for name in _VOCABULARIES)


def _config(path: Path) -> tuple[Path | None, dict[str, Any]]:
    """The config file of a folder and its values, or None and no values.

    Raises UserError for a file that is not JSON, and with what the folder is if not CPM-Ant's.
    """
    for file in [path / "config.json", *sorted(path.glob("*.json"))]:
        if not file.is_file():
            continue
        try:
            raw = read_json(file)
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: not valid JSON ({error}).") from error
        if not isinstance(raw, dict):
            continue
        if file.name == "config.json" and (other := _other_model(raw)):
            raise UserError(f"{path}: no CPM-Ant config: config.json has {other}; {_EXPECTED}.")
        if "dim_model" in raw or "hidden_size" in raw:
            return file, raw
    for name, meaning in _OTHERS:
        if next(path.glob(name), None) is not None:
            raise UserError(f"{path}: {meaning}.")
    return None, {}


def _other_model(raw: Mapping[str, Any]) -> str:
    """Which other model a config of Hugging Face's is of, or nothing."""
    kind, classes = raw.get("model_type"), raw.get("architectures")
    if raw.get("format") == "cpm-tune" or kind == "cpmant" or not isinstance(kind, str):
        return ""
    first = classes[0] if isinstance(classes, list) and classes else None
    named = f" ({first[:60]})" if isinstance(first, str) else ""
    return f"model_type {kind[:60]!r}{named}"


def _has_spaces(vocabulary: Path) -> bool:
    """Whether entries differ in their outer spaces alone, as only CPM-Ant+'s do."""
    try:
        lines = set(vocabulary.read_bytes().split(b"\n"))
    except OSError:  # the tokenizer names what is wrong with it
        return False
    return any(line[:1] == b" " and line.strip() in lines for line in lines)
