"""What a family of models adds to be pre-trained: its vocabulary, its config, and its objective.

`cpm_tune.pretrain` has everything else: text, order of rows, training, resuming, evaluation.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from cpm_tune.backbone.example import Ids
from cpm_tune.backbone.protocol import BackboneFolder, Layout
from cpm_tune.backbone.tokens import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    TokenIds = NDArray[np.int64]


@dataclass(frozen=True)
class TrainingBatch:
    """A batch of rows. `inputs`: what the model reads, of one shape for every batch of a run.

    index: int64 (targets,), the flat position whose hidden state predicts `token`: int64
    (targets,). objective, source: int64 (targets,), what each target counts for. `n_tokens`: that
    the model reads, without padding.
    """

    inputs: tuple[Tensor, ...]
    index: Tensor
    token: Tensor
    objective: NDArray[np.int64]
    source: NDArray[np.int64]
    n_tokens: int


class Rows(Protocol):
    """The rows of a split of a source: its documents, cut and put together."""

    @property
    def n_rows(self) -> int:
        """How many rows an epoch has."""
        ...

    def row(self, number: int) -> Sequence[TokenIds]:
        """The pieces' ids of a row, without what the objective puts around them."""
        ...


class Objective(Protocol):
    """What a model learns to predict, for rows of one width.

    labels: of the kinds of loss. end: the id that ends documents. banned: ids that no continuation
    has. An item is a row with what is predicted in it.
    """

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def end(self) -> int: ...

    @property
    def banned(self) -> frozenset[int]: ...

    def rows(self, tokens: NDArray[Any], offsets: TokenIds, seed: int) -> Rows:
        """Documents as rows; document i is tokens[offsets[i]:offsets[i + 1]]."""
        ...

    def drawn(
        self, generator: np.random.Generator, row: Sequence[TokenIds], label: int | None = None
    ) -> Any:
        """An item of a row: what is predicted is drawn, under a kind of loss if that is given."""
        ...

    def predicting(self, given: Sequence[int], ids: Sequence[int]) -> Any:
        """An item whose targets are the ids of a text after the given ids, and its end."""
        ...

    def batch(self, items: Sequence[tuple[int, Any]]) -> TrainingBatch:
        """A batch of (number of the source, item)."""
        ...

    @property
    def losses(self) -> Callable[..., Tensor]:
        """The function (model, index, token, *inputs) -> nats of every target: fp32 (targets,)."""
        ...

    def context(self, ids: Sequence[int]) -> Ids:
        """What a continuation of a text is generated after."""
        ...

    @property
    def layout(self) -> Layout:
        """The layout of `context`."""
        ...


class Pretraining(Protocol):
    """How a family is pre-trained; the member `pretraining` of a `Family` that can be.

    name: what `--kind` and a corpus's description call its vocabulary. vocabulary: the name of that
    file in a corpus. front, back: of a vocabulary of entries, the special ones that it begins and
    ends with; `train` makes one of another kind. pieces: whether documents are cut into pieces, of
    which too short ones can be left out. files: those that `write` writes.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    vocabulary: ClassVar[str]
    front: ClassVar[tuple[str, ...]]
    back: ClassVar[tuple[str, ...]]
    pieces: ClassVar[bool]
    files: ClassVar[frozenset[str]]

    def recognises(self, vocabulary: Path) -> bool:
        """Whether a file is a vocabulary of this kind, by its first bytes."""
        ...

    def train(self, texts: Iterable[str], size: int, required: str) -> bytes | None:
        """The file of a vocabulary made of texts, or None if it is one of entries."""
        ...

    def tokenizer(self, vocabulary: Path) -> Tokenizer:
        """Read a vocabulary; raise UserError for what is wrong."""
        ...

    def vocabulary_of(self, folder: BackboneFolder) -> Path | None:
        """The vocabulary of a backbone that can be trained on, None for another family's."""
        ...

    def keys(self) -> frozenset[str]:
        """The keys of a config that mean something."""
        ...

    def config(self, path: Path) -> Any:
        """Read a config; raise UserError for what is wrong."""
        ...

    def values(self, config: Any) -> Mapping[str, Any]:
        """A config as JSON."""
        ...

    def width(self, config: Any) -> int:
        """The width of rows if none is asked for."""
        ...

    def text_width(self, config: Any) -> int:
        """The width of a row for one text whose perplexity is measured."""
        ...

    def objective(
        self, config: Any, tokenizer: Any, *, width: int, shortest: int, rows: int = 1
    ) -> Objective:
        """The objective for a model; raise UserError if rows of that width cannot be, or `rows` of
        them need more memory than there is."""
        ...

    def random(self, config: Any, seed: int, dtype: torch.dtype) -> Any:
        """A model with random weights."""
        ...

    def write(self, model: Any, vocabulary: Path, folder: Path) -> None:
        """Write a backbone into an empty folder."""
        ...
