"""The door that models come in by: what the package asks of a family, a folder and a layout.

A `Family` recognises a folder and opens it as a `BackboneFolder`, which knows what config and
vocabulary say; its `Layout` turns contexts and answers into batches. What is computed with is in
`cpm_tune.backbone.base`: a Backbone and its batches, which are Any here, where torch is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from cpm_tune.backbone.example import Example, Ids
from cpm_tune.backbone.tokens import Tokenizer, Turns
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Encoding

if TYPE_CHECKING:
    import torch

Materialise = Callable[[Any], bool]  # gives a model without values memory, if it keeps parts


@dataclass(frozen=True)
class Shape:
    """A backbone in numbers.

    width: of hidden states. layers: of all stacks. vocabulary: columns of the logits. longest:
    tokens that it tells apart by position. cached: values that decoding keeps for each token.
    limit: the most tokens that it can read at all, None for any number.
    """

    width: int
    layers: int
    vocabulary: int
    longest: int
    cached: int
    limit: int | None = None


class BackboneConfig(Protocol):
    """A model's architecture: enough to build it without values.

    roles: for each role that deltas name (`@attention.q`), the endings of its modules' names.
    answers_apart: whether answers are in a sequence of their own, that of a decoder, which sees all
    of the context.
    """

    @property
    def answers_apart(self) -> bool: ...

    @property
    def family(self) -> str: ...

    @property
    def shape(self) -> Shape: ...

    @property
    def roles(self) -> Mapping[str, tuple[str, ...]]: ...

    def peft_prefix(self) -> str:
        """What transformers' class, and so PEFT, has before the names of modules; UserError if
        transformers has no such class."""
        ...

    def skeleton(self, layers: int | None = None) -> Any:
        """The Backbone without values, on the meta device; with its first `layers` layers alone."""
        ...


class ConfigDefaults:
    """What most families' configs answer alike, to inherit from."""

    family: str
    answers_apart: ClassVar[bool] = False

    def peft_prefix(self) -> str:
        raise UserError(f"PEFT has no class for models of the family {self.family}.")


class Layout(Protocol):
    """How contexts and answers become sequences, for one encoding.

    start: the ids that every context begins with. shortest: the fewest ids of a context.
    first_free: the first id that means nothing to the backbone; the tokens of a trained soft prompt
    have ids from there on. lead: the ids that every answer begins with, which are not scored.
    around: how many ids a sequence has besides `start`, context, `lead` and answer.
    """

    @property
    def start(self) -> Ids: ...

    @property
    def shortest(self) -> int: ...

    @property
    def first_free(self) -> int: ...

    @property
    def lead(self) -> Ids: ...

    @property
    def around(self) -> int: ...

    def n_tokens(self, example: Example) -> int:
        """The tokens of an example in a batch."""
        ...

    def collate(self, examples: Sequence[Example]) -> Any:
        """One Batch of whole examples, whose contexts begin with `start`."""
        ...

    def describe(self, example: Example) -> list[Shown]:
        """Each sequence of an example, for people to read."""
        ...


@dataclass(frozen=True)
class Shown:
    """A sequence for people to read: how many ids of the backbone's own come before its `tokens`,
    its length, and the entries that are scored, each after a position."""

    n_before: int
    tokens: tuple[str, ...]
    length: int
    scored: tuple[tuple[int, str], ...]


class BackboneFolder(Protocol):
    """What is in a backbone's folder, before any weight is read.

    `format` names the checkpoint format, `trained` is false for weights drawn at random. `settings`
    are the fields of `Encoding` that only some families have, and this one has, with the value that
    each has if none is given.
    """

    @property
    def path(self) -> Path: ...

    @property
    def name(self) -> str: ...

    @property
    def format(self) -> str: ...

    @property
    def trained(self) -> bool: ...

    @property
    def config(self) -> BackboneConfig: ...

    @property
    def settings(self) -> Mapping[str, Any]: ...

    def sha256(self) -> str:
        """Fingerprint of all files that decide what the backbone computes."""
        ...

    def tokenizer(self) -> Tokenizer:
        """Read the vocabulary; raise UserError if it does not fit."""
        ...

    def layout(self, encoding: Encoding, tokenizer: Any) -> Layout:
        """How sequences look; raise UserError for a setting that this backbone cannot have."""
        ...

    def infilling(self, tokenizer: Any) -> Infilling:
        """How texts with blanks look; raise UserError if this backbone fills none."""
        ...

    def chat_template(self) -> str:
        """The checkpoint's own chat template; raise UserError if it has none."""
        ...

    def turns(self, template: str, tokenizer: Any) -> Turns:
        """What a chat template puts around turns; raise UserError if it cannot be used."""
        ...

    def open(
        self,
        dtype: torch.dtype,
        *,
        random_seed: int | None = None,
        quantize: str | None = None,
        limit: int | None = None,
        device: torch.device | str = "cpu",
        materialise: Materialise | None = None,
    ) -> Any:
        """The Backbone in `dtype` on the CPU: its weights, or with `random_seed` random ones.

        `limit`: the most bytes of it in memory at a time, the rest is read while it computes, on
        `device`. `quantize` "int8": linear weights in 8 bits. `materialise`: see
        `cpm_tune.engine`. Raises UserError for broken files and for what the family cannot do; the
        caller rejects options that exclude each other (`cpm_tune.planning.placement`).
        """
        ...

    def check_save(self, form: str) -> None:
        """Raise UserError if this backbone cannot be written in a format: merged, the family's own,
        or hf."""
        ...

    def save(self, model: Any, path: Path, form: str, *, trained: bool) -> str:
        """Write this backbone, whose weights may have changed, into an empty folder; return what
        reads that, if there is something to know."""
        ...

    def convert(
        self,
        out: Path,
        to: str,
        *,
        dtype: torch.dtype | None,
        max_shard: int,
        ranks: int,
        overwrite: bool,
    ) -> str:
        """Write this backbone to a new folder in another checkpoint format; return what reads it,
        if there is something to know. Raises UserError if the family has no such format."""
        ...


def folder_name(path: Path) -> str:
    """A folder's name; for one in the hub's cache, that of the model."""
    if path.parent.name == "snapshots":
        return path.parent.parent.name.removeprefix("models--").replace("--", "/")
    return path.name


def fitting(encoding: Encoding, folder: BackboneFolder) -> Encoding:
    """The encoding without the settings that this family of models does not have, and with the
    family's defaults for those that nobody gave."""
    values = {name: None for name in Encoding.OMITTED if name not in folder.settings}
    for name, default in folder.settings.items():
        if name not in encoding.model_fields_set and getattr(encoding, name) is None:
            values[name] = default
    return encoding.model_copy(update=values)


def check_length(length: int, config: BackboneConfig, setting: str) -> None:
    """Raise UserError if sequences may be longer than a model can read."""
    limit = config.shape.limit
    if limit is not None and length > limit:
        raise UserError(
            f"{setting} is {length:,}, but this backbone reads {limit:,} tokens at most; set it to "
            f"{limit} or less."
        )


def no_chat(path: Path, family: str) -> UserError:
    """The error of a family whose models have no chat template."""
    return UserError(f"{path}: models of the family {family} have no chat template; leave it out.")


class FolderDefaults:
    """What most families' folders answer alike, to inherit from."""

    path: Path
    config: BackboneConfig
    format = "native"
    trained = True
    settings: ClassVar[Mapping[str, Any]] = {}

    @property
    def name(self) -> str:
        return folder_name(self.path)

    def infilling(self, tokenizer: Any) -> Infilling:
        raise UserError(f"{self.path}: models of the family {self.config.family} fill no blanks.")

    def chat_template(self) -> str:
        raise no_chat(self.path, self.config.family)

    def turns(self, template: str, tokenizer: Any) -> Turns:
        raise no_chat(self.path, self.config.family)

    def check_save(self, form: str) -> None:
        raise UserError(
            f"{self.path}: models of the family {self.config.family} cannot be written again; "
            "its deltas can be used with predict and load_delta."
        )

    def save(self, model: Any, path: Path, form: str, *, trained: bool) -> str:
        self.check_save(form)
        return ""

    def convert(self, out: Path, to: str, **how: Any) -> str:
        raise UserError(
            f"{self.path}: models of the family {self.config.family} have one checkpoint format; "
            "convert has nothing to do."
        )


@dataclass(frozen=True)
class Infilling:
    """How a text with blanks becomes ids.

    By `blank`: `layout.start`, the text with `blank` at each masked position, `end`; every length
    is tried. By `sentinels`: the text with one sentinel for each blank; what is generated is a
    text for the first, the second sentinel, a text for the second blank, and so on, up to the
    sentinel after the last. `lengths`: of a blank, if the text does not say.
    """

    layout: Layout
    blank: int = 0
    end: Ids = ()
    sentinels: Ids = ()
    lengths: range = range(1, 5)


class Family(Protocol):
    """A kind of model. `presets` are published sizes by name, to estimate without a checkpoint.

    A family that can be pre-trained has a member `pretraining`, a
    `cpm_tune.backbone.pretraining.Pretraining`. A family whose models all have the same roles has a
    member `roles`, as a config has it.
    """

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def presets(self) -> Mapping[str, BackboneConfig]: ...

    def recognises(self, folder: Path) -> bool:
        """Whether a folder's files are this family's, by config and names alone."""
        ...

    def open(self, folder: Path) -> BackboneFolder:
        """Open a folder; raise UserError with what is missing or wrong."""
        ...
