"""Encoder-decoders of T5's kind, as a family."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cpm_tune.backbone.encdec.config import MODEL_TYPES, PRESETS, EncDecConfig
from cpm_tune.backbone.encdec.folder import EncDecFolder, open_folder
from cpm_tune.backbone.encdec.pretraining import PRETRAINING
from cpm_tune.backbone.hf_folder import raw_config
from cpm_tune.backbone.ranks.files import is_cpm2
from cpm_tune.errors import UserError


class EncDecFamily:
    """Folders in Hugging Face's format, and CPM-2's files of ranks."""

    name = "encdec"
    title = "encoder-decoders: T5, mT5, CPM-2"
    pretraining = PRETRAINING

    @property
    def presets(self) -> Mapping[str, EncDecConfig]:
        return PRESETS

    def recognises(self, folder: Path) -> bool:
        """Whether there are CPM-2's files of ranks, or config.json names T5's or mT5's network."""
        if is_cpm2(folder):
            return True
        try:
            kind = raw_config(folder).get("model_type")
        except UserError:
            return False
        return isinstance(kind, str) and kind in MODEL_TYPES

    def open(self, folder: Path) -> EncDecFolder:
        return open_folder(folder)


ENCDEC = EncDecFamily()
