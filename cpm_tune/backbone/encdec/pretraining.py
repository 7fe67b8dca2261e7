"""CPM-2's pre-training (`cpm_tune.backbone.pretraining`). Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cpm_tune.backbone.encdec.config import EncDecConfig
from cpm_tune.backbone.encdec.cpm2_tokenizer import CHINESE, CPM2Tokenizer
from cpm_tune.backbone.encdec.folder import EncDecFolder
from cpm_tune.backbone.encdec.layout import EncDecLayout
from cpm_tune.backbone.pretraining import Objective
from cpm_tune.backbone.protocol import BackboneFolder
from cpm_tune.common.door import load
from cpm_tune.common.reading import read_json
from cpm_tune.errors import UserError

if TYPE_CHECKING:
    import torch

SENTINELS = tuple(f"<s_{number}>" for number in range(190))  # as many as CPM-2's Chinese file
_WIDTH = 256
_MADE = {"pad_token_id": CHINESE["<pad>"], "decoder_start_token_id": CHINESE["<s>"]}


def _front() -> tuple[str, ...]:
    """The entries up to the last special one, ordinary ones between them."""
    at = {index: entry for entry, index in CHINESE.items()}
    ordinary = iter("，。")
    return tuple(at[n] if n in at else next(ordinary) for n in range(max(at) + 1))


def _widest(sentinels: int) -> int:
    """The width of rows in which spans cannot be more than sentinels, however short documents are:
    one of every second token, one of an end alone, and the sentinel after the last."""
    return 2 * (sentinels - 2)


class CPM2Pretraining:
    """Spans and continuations, for T5's network with a head of its own."""

    name: ClassVar = "cpm-2"
    title: ClassVar = "CPM-2"
    vocabulary: ClassVar = "vocab.txt"
    front: ClassVar = _front()
    back: ClassVar = SENTINELS
    pieces: ClassVar = False
    files: ClassVar = frozenset({"config.json", "model.safetensors", "vocab.txt"})

    def recognises(self, vocabulary: Path) -> bool:
        """Whether a file begins with CPM-2's special entries."""
        try:
            with vocabulary.open("rb") as file:
                start = file.read(200).split()
        except OSError:
            return False
        return start[:3] == [b"<unk>", b"<s>", b"</s>"] and b"<eod>" in start[:9]

    def train(self, texts: Iterable[str], size: int, required: str) -> None:
        return None

    def tokenizer(self, vocabulary: Path) -> CPM2Tokenizer:
        return CPM2Tokenizer.from_file(vocabulary)

    def vocabulary_of(self, folder: BackboneFolder) -> Path | None:
        return folder.vocabulary if isinstance(folder, EncDecFolder) and folder.is_cpm2 else None

    def keys(self) -> frozenset[str]:
        return frozenset({*vars(EncDecConfig()), "tie_word_embeddings"} - {"tied", "scaled"})

    def config(self, path: Path) -> EncDecConfig:
        """Read T5's keys; dropout is 0 unless it is given, the head is never the embedding."""
        try:
            values = read_json(path)
            if not isinstance(values, dict) or "vocab_size" not in values:
                raise ValueError("expected an object with model_type mt5 and vocab_size")
            if values.get("tie_word_embeddings"):
                raise ValueError("tie_word_embeddings is true, but CPM-2 has a head of its own")
            given = {"dropout_rate": 0.0, "tie_word_embeddings": False, **values, **_MADE}
            if isinstance(size := values["vocab_size"], int):
                given["eos_token_id"] = size - len(SENTINELS) + 1
            return EncDecConfig.of(given)
        except (OSError, ValueError, UserError) as error:
            raise UserError(f"{path}: not a config of CPM-2's form: {error}") from error

    def values(self, config: EncDecConfig) -> dict[str, Any]:
        return config.values

    def width(self, config: EncDecConfig) -> int:
        return _WIDTH

    def text_width(self, config: EncDecConfig) -> int:
        return _widest(len(SENTINELS))  # the text is in the decoder

    def objective(
        self,
        config: EncDecConfig,
        tokenizer: CPM2Tokenizer,
        *,
        width: int,
        shortest: int,
        rows: int = 1,
    ) -> Objective:
        if not 8 <= width <= (most := _widest(len(tokenizer.sentinels))):
            raise UserError(
                f"--width {width}: expected 8 to {most}, for {len(tokenizer.sentinels)} sentinels: "
                "every span of a row needs one of its own."
            )
        layout = EncDecLayout(
            tokenizer,
            rows=config.vocab_size,
            first=config.decoder_start_token_id,
            sentinel=tokenizer.sentinels[0],
            form="blank",
        )
        made: Objective = load("cpm_tune.backbone.encdec.objective:SpanObjective")(
            tokenizer, layout, width, tokenizer.ids["<eod>"]
        )
        return made

    def random(self, config: EncDecConfig, seed: int, dtype: torch.dtype) -> Any:
        return load("cpm_tune.backbone.opening:random_backbone")(config, seed, dtype)

    def write(self, model: Any, vocabulary: Path, folder: Path) -> None:
        load("cpm_tune.backbone.encdec.saving:write")(model, vocabulary, folder)


PRETRAINING = CPM2Pretraining()
