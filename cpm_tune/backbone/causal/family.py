"""Every causal language model that transformers has, as a family."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cpm_tune.backbone.causal.config import PRESETS, CausalConfig
from cpm_tune.backbone.causal.folder import CausalFolder, open_folder
from cpm_tune.backbone.causal.names import causal_types
from cpm_tune.backbone.causal.pretraining import PRETRAINING
from cpm_tune.backbone.hf_folder import raw_config
from cpm_tune.backbone.ranks.files import has_ranks, is_cpm2
from cpm_tune.errors import UserError


class CausalFamily:
    """Folders in Hugging Face's format; CPM-1 is one, with GPT-2's network."""

    name = "causal"
    title = "causal language models of transformers"
    pretraining = PRETRAINING

    @property
    def presets(self) -> Mapping[str, CausalConfig]:
        return PRESETS

    def recognises(self, folder: Path) -> bool:
        """Whether there are files of model-parallel ranks (but CPM-2's), or config.json names a
        causal language model, of transformers' or with its own code (which `open` refuses)."""
        if has_ranks(folder):
            return not is_cpm2(folder)
        try:
            values = raw_config(folder)
        except UserError:
            return False
        kind, own_code = values.get("model_type"), values.get("auto_map")
        if not isinstance(kind, str) or kind == "cpmant" or values.get("format") == "cpm-tune":
            return False
        return (isinstance(own_code, dict) and "AutoModelForCausalLM" in own_code) or (
            kind in causal_types()
        )

    def open(self, folder: Path) -> CausalFolder:
        return open_folder(folder)


CAUSAL = CausalFamily()
