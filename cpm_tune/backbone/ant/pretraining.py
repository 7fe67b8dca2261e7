"""CPM-Ant's pre-training (`cpm_tune.backbone.pretraining`). Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.folder import CPMAntFolder
from cpm_tune.backbone.ant.tokenizer import SPECIALS, Tokenizer
from cpm_tune.backbone.pretraining import Objective
from cpm_tune.backbone.protocol import BackboneFolder
from cpm_tune.common.door import load

if TYPE_CHECKING:
    import torch

WIDTH = 256
_START = 4096  # bytes


class AntPretraining:
    """Text infilling and generation, half and half."""

    name: ClassVar = "cpm-ant"
    title: ClassVar = "CPM-Ant"
    vocabulary: ClassVar = "vocab.txt"
    front: ClassVar = ("<pad>", *SPECIALS, "</n>", "</_>")
    back: ClassVar[tuple[str, ...]] = ()
    pieces: ClassVar = True
    files: ClassVar = frozenset({"config.json", "model.safetensors", "vocab.txt"})

    def recognises(self, vocabulary: Path) -> bool:
        """Whether <d> is among a file's first entries."""
        try:
            with vocabulary.open("rb") as file:
                return b"<d>" in file.read(_START).split()
        except OSError:
            return False

    def train(self, texts: Iterable[str], size: int, required: str) -> None:
        return None

    def tokenizer(self, vocabulary: Path) -> Tokenizer:
        return Tokenizer.from_file(vocabulary)

    def vocabulary_of(self, folder: BackboneFolder) -> Path | None:
        return folder.vocabulary if isinstance(folder, CPMAntFolder) else None

    def keys(self) -> frozenset[str]:
        return frozenset(CPMAntConfig.keys())

    def config(self, path: Path) -> CPMAntConfig:
        return CPMAntConfig.from_file(path)

    def values(self, config: CPMAntConfig) -> dict[str, Any]:
        return config.to_dict()

    def width(self, config: CPMAntConfig) -> int:
        return WIDTH

    def text_width(self, config: CPMAntConfig) -> int:
        return WIDTH + config.prompt_length

    def objective(
        self,
        config: CPMAntConfig,
        tokenizer: Tokenizer,
        *,
        width: int,
        shortest: int,
        rows: int = 1,
    ) -> Objective:
        make = load("cpm_tune.backbone.ant.objective:make_objective")
        objective: Objective = make(config, tokenizer, width=width, shortest=shortest, rows=rows)
        return objective

    def random(self, config: CPMAntConfig, seed: int, dtype: torch.dtype) -> Any:
        return load("cpm_tune.backbone.opening:random_backbone")(config, seed, dtype)

    def write(self, model: Any, vocabulary: Path, folder: Path) -> None:
        text = vocabulary.read_text(encoding="utf-8-sig")
        load("cpm_tune.backbone.ant.checkpoint:write_native")(folder, model, text, trained=True)


PRETRAINING = AntPretraining()
