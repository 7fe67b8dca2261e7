"""Opens an encoder-decoder's folder: T5, mT5 or CPM-2 in Hugging Face's format, or CPM-2's files of
ranks.

Reads config, vocabulary and names of weights, no weight; imports torch for files of ranks alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpm_tune.backbone.encdec.config import EncDecConfig
from cpm_tune.backbone.encdec.cpm2 import VOCABULARY, rank_vocabulary, read_ranks, read_vocabulary
from cpm_tune.backbone.encdec.cpm2_tokenizer import CPM2Tokenizer
from cpm_tune.backbone.encdec.layout import EncDecLayout
from cpm_tune.backbone.encdec.tokenizer import T5Tokenizer, find_model, read_tokenizer
from cpm_tune.backbone.hf_folder import CONFIG, raw_config, weight_files
from cpm_tune.backbone.protocol import FolderDefaults, Infilling
from cpm_tune.backbone.ranks.files import is_cpm2
from cpm_tune.common.door import load
from cpm_tune.common.paths import input_sha256
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Encoding

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class EncDecFolder(FolderDefaults):
    """A folder in Hugging Face's format, or with `format` "mp_rank" of CPM-2's ranks.

    `weights`: its files of tensors. `vocabulary`: sentencepiece's model, or CPM-2's vocab.txt.
    """

    path: Path
    config: EncDecConfig
    weights: tuple[Path, ...]
    vocabulary: Path
    trained: bool = True
    format: str = "hf"

    @property
    def is_cpm2(self) -> bool:
        """Whether the vocabulary is CPM-2's."""
        return self.vocabulary.suffix == ".txt"

    @property
    def settings(self) -> Mapping[str, Any]:  # type: ignore[override]
        return {"target": "sentinel" if self.is_cpm2 else "answer"}

    def sha256(self) -> str:
        """Fingerprint of the config and of the vocabulary's and weights' files."""
        about = json.dumps(vars(self.config), sort_keys=True)
        digest = hashlib.sha256(about.encode())
        for path in (self.vocabulary, *self.weights):
            digest.update(path.name.encode() + bytes.fromhex(input_sha256(path)))
        return digest.hexdigest()

    def tokenizer(self) -> T5Tokenizer | CPM2Tokenizer:
        """Read the vocabulary; raise UserError if it has entries that the model does not."""
        config = self.config
        if not self.is_cpm2:
            return read_tokenizer(
                self.vocabulary,
                pad=config.pad_token_id,
                eos=config.eos_token_id,
                columns=config.vocab_size,
                extra_ids=_extra_ids(self.path),
            )
        return read_vocabulary(self.vocabulary, config.vocab_size)

    def layout(self, encoding: Encoding, tokenizer: Any) -> EncDecLayout:
        """How sequences look, for `encode.target`."""
        return EncDecLayout(
            tokenizer,
            rows=self.config.vocab_size,
            first=self.config.decoder_start_token_id,
            sentinel=tokenizer.sentinels[0],
            end=() if self.is_cpm2 else (tokenizer.eos,),
            form=encoding.target or self.settings["target"],
        )

    def infilling(self, tokenizer: Any) -> Infilling:
        """As in pre-training: a sentinel for each blank, of whatever length."""
        layout = self.layout(Encoding(target="sentinel"), tokenizer)
        return Infilling(layout, sentinels=tokenizer.sentinels, lengths=range(1, 33))

    def open(self, dtype: torch.dtype, **how: Any) -> Any:
        """The EncDec, see `cpm_tune.backbone.protocol.BackboneFolder.open`."""
        return load("cpm_tune.backbone.encdec.loading:open_backbone")(self, dtype, **how)

    def check_save(self, form: str) -> None:
        """Both formats, merged and hf, are Hugging Face's."""

    def save(self, model: Any, path: Path, form: str, *, trained: bool) -> str:
        """Write config, weights and vocabulary into an empty folder, in Hugging Face's format."""
        load("cpm_tune.backbone.encdec.saving:save")(self, model, path, trained=trained)
        return ""

    def convert(self, out: Path, to: str, **how: Any) -> str:
        """Write a CPM-2 as files of ranks (reference), or in Hugging Face's format."""
        model = load("cpm_tune.backbone.encdec.converting:convertible")(self)
        load("cpm_tune.backbone.ranks.converting:convert")(model, out, to, **how)
        return ""


def open_folder(path: Path) -> EncDecFolder:
    """Open a folder; raise UserError with what is missing, or cannot be used and why."""
    values = raw_config(path)
    trained = values.get("cpm_tune_trained") is not False
    if is_cpm2(path):
        vocabulary = rank_vocabulary(path)
        values, files = read_ranks(path, vocabulary)
        config = EncDecConfig.of(values)
        return EncDecFolder(path, config, files, vocabulary, trained, "mp_rank")
    try:
        config = EncDecConfig.of(values)
    except UserError as error:
        raise UserError(f"{path / CONFIG}: {error}") from error
    if values.get("quantization_config"):
        raise UserError(
            f"{path}: weights quantised by another library; get the unquantised model "
            f"(quantization_config in {CONFIG})."
        )
    vocabulary = find_model(path) or path / VOCABULARY
    if raw_config(path, "tokenizer_config.json").get("tokenizer_class") == "ByT5Tokenizer":
        raise UserError(f"{path}: ByT5 reads bytes, which is not supported; use a T5 or an mT5.")
    if not vocabulary.is_file() and (path / "tokenizer.json").is_file():
        raise UserError(
            f"{path}: tokenizer.json is not read for T5 and mT5; put the model's sentencepiece "
            "file there as spiece.model."
        )
    if not vocabulary.is_file():
        raise UserError(
            f"{path}: no vocabulary; put the model's sentencepiece file there as spiece.model, or "
            f"CPM-2's as {VOCABULARY}."
        )
    return EncDecFolder(path, config, weight_files(path), vocabulary, trained)


def _extra_ids(path: Path) -> int:
    """The number of sentinels after a sentencepiece model's entries, as tokenizer_config.json
    has it."""
    value = raw_config(path, "tokenizer_config.json").get("extra_ids", 100)
    return value if isinstance(value, int) and 0 <= value <= 10_000 else 100
