"""Opens a causal language model's folder, in Hugging Face's format or CPM-1's files of ranks.

Reads config, tokenizer and names of weights, no weight; imports torch for files of ranks alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpm_tune.backbone.causal.chat import make_turns, own_template, special_names
from cpm_tune.backbone.causal.config import CausalConfig
from cpm_tune.backbone.causal.cpm1 import (
    SPECIALS,
    hf_vocabulary,
    rank_vocabulary,
    read_ranks,
)
from cpm_tune.backbone.causal.cpm1_tokenizer import CPM1Tokenizer
from cpm_tune.backbone.causal.layout import CausalLayout
from cpm_tune.backbone.causal.names import causal_types
from cpm_tune.backbone.causal.tokenizer import FILES, HFTokenizer, read_tokenizer, tokenizer_about
from cpm_tune.backbone.hf_folder import CONFIG, raw_config, weight_files
from cpm_tune.backbone.protocol import FolderDefaults
from cpm_tune.backbone.ranks.files import has_ranks
from cpm_tune.backbone.tokens import Turns
from cpm_tune.common.door import load
from cpm_tune.common.paths import input_sha256
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Encoding

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class CausalFolder(FolderDefaults):
    """A folder in Hugging Face's format, or with `format` "mp_rank" of CPM-1's ranks.

    `weights`: its files of tensors. `vocabulary`: of a CPM-1, the sentencepiece model.
    """

    path: Path
    config: CausalConfig
    weights: tuple[Path, ...]
    trained: bool = True
    format: str = "hf"
    vocabulary: Path | None = None

    def sha256(self) -> str:
        """Fingerprint of the config and of the tokenizer's and weights' files."""
        digest = hashlib.sha256(self.config.text.encode())
        for path in (*self._tokenizer_files, *self.weights):
            digest.update(path.name.encode() + bytes.fromhex(input_sha256(path)))
        return digest.hexdigest()

    @property
    def _tokenizer_files(self) -> tuple[Path, ...]:
        if self.vocabulary is not None:
            return (self.vocabulary,)
        return tuple(path for name in FILES if (path := self.path / name).is_file())

    def tokenizer(self) -> HFTokenizer | CPM1Tokenizer:
        """Read the tokenizer; raise UserError if it has entries that the model does not."""
        if self.vocabulary is None:
            return read_tokenizer(self.path, self.config.values)
        tokenizer = CPM1Tokenizer.from_file(self.vocabulary)
        if len(tokenizer) > self.config.shape.vocabulary:
            raise UserError(
                f"{self.vocabulary}: {len(tokenizer)} entries, but the model has "
                f"{self.config.shape.vocabulary}; use the vocabulary that belongs to it."
            )
        return tokenizer

    def layout(self, encoding: Encoding, tokenizer: HFTokenizer | CPM1Tokenizer) -> CausalLayout:
        """How sequences look; raise UserError for more tokens than the model has positions for."""
        shape = self.config.shape
        if encoding.max_length > shape.longest:
            raise UserError(
                f"encode.max_length is {encoding.max_length}, but {self.name} reads at most "
                f"{shape.longest} tokens; set it to {shape.longest} or less."
            )
        return CausalLayout(tokenizer, tokenizer.start, max(shape.vocabulary, len(tokenizer)))

    def chat_template(self) -> str:
        """The checkpoint's own chat template; raise UserError if it has none."""
        if self.vocabulary is not None:
            raise UserError(f"{self.path}: CPM-1 has no chat template; leave it out.")
        return own_template(self.path)

    def turns(self, template: str, tokenizer: HFTokenizer | CPM1Tokenizer) -> Turns:
        """What a chat template puts around turns; raise UserError if it cannot be used."""
        if isinstance(tokenizer, CPM1Tokenizer):
            raise UserError(f"{self.path}: CPM-1 has no chat template; leave it out.")
        where = f"{self.path}: the chat template"
        return make_turns(template, special_names(self.path), tokenizer, where)

    def open(self, dtype: torch.dtype, **how: Any) -> Any:
        """The CausalLM, see `cpm_tune.backbone.protocol.BackboneFolder.open`."""
        return load("cpm_tune.backbone.causal.loading:open_backbone")(self, dtype, **how)

    def check_save(self, form: str) -> None:
        """Both formats, merged and hf, are Hugging Face's."""

    def save(self, model: Any, path: Path, form: str, *, trained: bool) -> str:
        """Write config, weights and tokenizer into an empty folder, in Hugging Face's format."""
        load("cpm_tune.backbone.causal.saving:save")(self, model, path, trained=trained)
        return ""

    def convert(self, out: Path, to: str, **how: Any) -> str:
        """Write a CPM-1 as files of ranks (reference), or in Hugging Face's format."""
        model = load("cpm_tune.backbone.causal.converting:convertible")(self)
        load("cpm_tune.backbone.ranks.converting:convert")(model, out, to, **how)
        return ""


def open_folder(path: Path) -> CausalFolder:
    """Open a folder; raise UserError with what is missing, or cannot be used and why."""
    values = raw_config(path)
    if has_ranks(path):
        values, files = read_ranks(path, values)
        config = CausalConfig.of(values)
        return CausalFolder(path, config, files, True, "mp_rank", rank_vocabulary(path))
    kind = values.get("model_type")
    if "auto_map" in values and kind not in causal_types():
        raise UserError(
            f"{path}: this model needs Python code from its folder (auto_map), and code from "
            "downloads is never run here; use a model that transformers has itself."
        )
    if kind not in causal_types():
        raise UserError(
            f"{path / CONFIG}: model_type is {kind!r}, for which transformers has no causal "
            "language model."
        )
    for key, meaning in (
        ("quantization_config", "weights quantised by another library; get the unquantised model"),
        ("vision_config", "a model of images and text; use one of text alone"),
        ("audio_config", "a model of sound and text; use one of text alone"),
    ):
        if values.get(key):
            raise UserError(f"{path}: {meaning} ({key} in {CONFIG}).")
    weights = weight_files(path)
    trained = values.get("cpm_tune_trained") is not False
    vocabulary = hf_vocabulary(path, values, tokenizer_about(path))
    if vocabulary is not None:
        values = {**values, **SPECIALS}
    config = CausalConfig.of(values)
    return CausalFolder(path, config, weights, trained, vocabulary=vocabulary)
