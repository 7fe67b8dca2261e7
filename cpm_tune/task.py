"""What a task file may say: data files, templates, answer kind, metrics, recipe, provenance.

Everything here is plain, frozen and checked when the task file is loaded; no heavy import.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SPLITS = ("train", "dev", "test")
Row = dict[str, Any]
Reader = Callable[[Path], Iterator[tuple[int, Row]]]


@dataclass(frozen=True)
class Source:
    """Where a dataset comes from and how large it officially is.

    `sizes` are the official numbers of rows in train, dev and test; None where there is none.
    """

    title: str
    paper: str
    licence: str
    obtain: str
    sizes: tuple[int | None, int | None, int | None] = (None, None, None)


@dataclass(frozen=True)
class Files:
    """How the dataset lies on disk.

    `columns` are the fields each row has, the label last, in the order of a table without header.
    `aliases` maps other spellings found in official files to these. `names` gives the accepted file
    stems of each split. `read`, if given, replaces the readers for jsonl, tsv and csv: it yields
    (line number, row) pairs.
    """

    columns: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {
            "train": ("train",),
            "dev": ("dev", "valid", "eval"),
            "test": ("test", "test_public"),
        }
    )
    read: Reader | None = None


@dataclass(frozen=True)
class Choice:
    """One of a fixed set of options. `labels` are the values of `column` in the files, in order."""

    labels: tuple[int | str, ...]
    column: str = "label"


@dataclass(frozen=True)
class Piece:
    """A part of a template: `kind` is text, field, option or answer."""

    kind: str
    value: str = ""


@dataclass(frozen=True)
class Template:
    """A named, versioned prompt.

    With `{option}` every option is written into the prompt in turn and scored by the logit of the
    token `yes` at its end (CPM-Ant's protocol). With `{answer}` at the end, options are scored by
    their log-probability as the continuation (a verbaliser, CPM-2's protocol). `options` are the
    texts in the order of the task's labels.
    """

    name: str
    text: str
    options: tuple[str, ...]
    version: int = 1
    yes: str = "是"

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The parsed template text."""
        found: list[Piece] = []
        for literal, name, spec, conversion in string.Formatter().parse(self.text):
            if literal:
                found.append(Piece("text", literal))
            if name is None:
                continue
            if spec or conversion or not re.fullmatch(r"\w+", name):
                raise ValueError(f"template '{self.name}': '{{{name}}}' is not a plain field name")
            kind = name if name in ("option", "answer") else "field"
            found.append(Piece(kind, name))
        return tuple(found)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the row fields the template shows, in order."""
        return tuple(piece.value for piece in self.pieces if piece.kind == "field")

    @property
    def by_option(self) -> bool:
        """Whether options are scored by the `yes` logit (else by verbaliser)."""
        return any(piece.kind == "option" for piece in self.pieces)

    @property
    def sha256(self) -> str:
        """Fingerprint of everything that decides what the model sees and how it answers."""
        said = "\x1f".join((self.text, self.yes if self.by_option else "", *self.options))
        return hashlib.sha256(said.encode()).hexdigest()

    def check(self, columns: tuple[str, ...], labels: int) -> None:
        """Raise ValueError where the template does not fit the task's columns and labels."""
        slots = [piece.kind for piece in self.pieces if piece.kind in ("option", "answer")]
        if len(slots) != 1:
            raise ValueError(
                f"template '{self.name}' needs exactly one of {{option}} and {{answer}}"
            )
        if slots[0] == "answer" and self.pieces[-1].kind != "answer":
            raise ValueError(f"template '{self.name}': {{answer}} must come last")
        unknown = [name for name in self.fields if name not in columns]
        if unknown:
            raise ValueError(f"template '{self.name}' names unknown field '{unknown[0]}'")
        if not isinstance(self.options, tuple):
            raise TypeError(f"template '{self.name}': options must be a tuple of texts")
        after = [piece.kind for piece in self.pieces]
        after = after[after.index(slots[0]) :]
        if "field" in after:
            raise ValueError(f"template '{self.name}': fields must come before {{option}}")
        if len(self.options) != labels or len(set(self.options)) != labels:
            raise ValueError(f"template '{self.name}' needs {labels} different options")


@dataclass(frozen=True)
class Task:
    """One dataset. See CONTRIBUTING.md for how to add one.

    `metrics` names metrics of `cpm_tune.metrics`; the first one ranks and selects. `templates`: the
    first one is the default. `recipe` holds defaults of `train.*` and `encode.*` settings,
    `sample_recipe` what differs on the sample data (small, and meant for the tiny backbone).
    `published` maps a row name to a test score of the ranking metric, quoted from
    `published_source`.
    """

    name: str
    version: int
    capability: str
    kind: str
    source: Source
    files: Files
    answer: Choice
    templates: tuple[Template, ...]
    metrics: tuple[str, ...]
    suites: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    sample_recipe: Mapping[str, Any] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)
    published_source: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", self.name):
            raise ValueError(f"task name '{self.name}' may hold only a-z, 0-9, '-' and '_'")
        if not self.templates or not self.metrics:
            raise ValueError("a task needs at least one template and one metric")
        for what, value in (
            ("metrics", self.metrics),
            ("templates", self.templates),
            ("suites", self.suites),
            ("files.columns", self.files.columns),
            ("answer.labels", self.answer.labels),
        ):
            if not isinstance(value, tuple):
                raise TypeError(f"{what} must be a tuple, such as ('a', 'b') or ('a',)")
            if len(set(value)) != len(value):
                raise ValueError(f"{what} names something twice")
        if not isinstance(self.version, int) or len(self.source.sizes) != 3:
            raise ValueError("version must be a whole number, source.sizes have three entries")
        names = [template.name for template in self.templates]
        if len(set(names)) != len(names):
            raise ValueError("two templates have the same name; give each its own")
        if self.answer.column not in self.files.columns:
            raise ValueError(f"answer column '{self.answer.column}' is not one of the columns")
        shown = tuple(name for name in self.files.columns if name != self.answer.column)
        for template in self.templates:
            template.check(shown, len(self.answer.labels))

    def template(self, name: str | None) -> Template | None:
        """Return the template of that name (None: the default), or None if there is none."""
        if name is None:
            return self.templates[0]
        return next((t for t in self.templates if t.name == name), None)
