"""CPM-1's pre-training (`cpm_tune.backbone.pretraining`). Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cpm_tune.backbone.causal.config import CausalConfig
from cpm_tune.backbone.causal.cpm1 import SPECIALS
from cpm_tune.backbone.causal.cpm1_tokenizer import CPM1Tokenizer
from cpm_tune.backbone.causal.folder import CausalFolder
from cpm_tune.backbone.pretraining import Objective
from cpm_tune.backbone.protocol import BackboneFolder
from cpm_tune.common.door import load
from cpm_tune.common.reading import read_json
from cpm_tune.errors import UserError

if TYPE_CHECKING:
    import torch

_COUNTS = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
_RATES = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
_OTHERS = {
    *("model_type", "n_inner", "activation_function", "layer_norm_epsilon", "initializer_range"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"),
}
_MOST = 2**31


class CPM1Pretraining:
    """The next token, over documents end to end, for GPT-2's network."""

    name: ClassVar = "sentencepiece"
    title: ClassVar = "CPM-1"
    vocabulary: ClassVar = "spiece.model"
    front: ClassVar[tuple[str, ...]] = ()
    back: ClassVar[tuple[str, ...]] = ()
    pieces: ClassVar = False
    files: ClassVar = frozenset(
        {"config.json", "model.safetensors", "spiece.model", "tokenizer_config.json"}
    )

    def recognises(self, vocabulary: Path) -> bool:
        """Whether a file begins as sentencepiece's models do: with a piece, whose first field is
        its text."""
        try:
            with vocabulary.open("rb") as file:
                start = file.read(3)
        except OSError:
            return False
        return start[:1] == b"\n" and start[2:3] == b"\n"

    def train(self, texts: Iterable[str], size: int, required: str) -> bytes:
        made: bytes = load("cpm_tune.backbone.causal.cpm1_vocabulary:train")(texts, size, required)
        return made

    def tokenizer(self, vocabulary: Path) -> CPM1Tokenizer:
        return CPM1Tokenizer.from_file(vocabulary)

    def vocabulary_of(self, folder: BackboneFolder) -> Path | None:
        return folder.vocabulary if isinstance(folder, CausalFolder) else None

    def keys(self) -> frozenset[str]:
        return frozenset({*_COUNTS, *_RATES, *_OTHERS})

    def config(self, path: Path) -> CausalConfig:
        """Read GPT-2's keys; dropouts are 0 unless they are given."""
        try:
            values = read_json(path)
            if not isinstance(values, dict) or values.get("model_type") != "gpt2":
                raise ValueError("expected an object with model_type gpt2")
            for key in _COUNTS:
                if key not in values:
                    raise ValueError(f"'{key}' is missing")
                value = values[key]
                if not (type(value) is int and 0 < value < _MOST):
                    raise ValueError(f"{key} is {value!r}, expected a whole number above 0")
            if values["n_embd"] % values["n_head"]:
                raise ValueError(
                    f"n_embd is {values['n_embd']}, expected a multiple of n_head "
                    f"({values['n_head']})"
                )
            if values.get("tie_word_embeddings", True) is not True:
                raise ValueError("tie_word_embeddings is false, but CPM-1's head is its embedding")
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not a config of CPM-1's form: {error}.") from error
        config = CausalConfig.of({**dict.fromkeys(_RATES, 0.0), **values, **SPECIALS})
        load("cpm_tune.backbone.causal.architecture:architecture")(config)
        return config

    def values(self, config: CausalConfig) -> dict[str, Any]:
        return config.values

    def width(self, config: CausalConfig) -> int:
        return config.shape.longest

    def text_width(self, config: CausalConfig) -> int:
        return min(256, config.shape.longest)

    def objective(
        self,
        config: CausalConfig,
        tokenizer: CPM1Tokenizer,
        *,
        width: int,
        shortest: int,
        rows: int = 1,
    ) -> Objective:
        if not 2 <= width <= config.shape.longest:
            raise UserError(
                f"--width {width}: expected 2 to {config.shape.longest}, which the model has "
                "positions for."
            )
        layout = load("cpm_tune.backbone.causal.layout:CausalLayout")(
            tokenizer, tokenizer.start, config.shape.vocabulary
        )
        made: Objective = load("cpm_tune.backbone.causal.objective:CausalObjective")(
            tokenizer, layout, width
        )
        return made

    def random(self, config: CausalConfig, seed: int, dtype: torch.dtype) -> Any:
        return load("cpm_tune.backbone.causal.loading:random_model")(config, seed, dtype)

    def write(self, model: Any, vocabulary: Path, folder: Path) -> None:
        load("cpm_tune.backbone.causal.saving:write")(model, vocabulary, folder)


PRETRAINING = CPM1Pretraining()
