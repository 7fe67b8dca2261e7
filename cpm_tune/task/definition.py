"""What a task file may say: data files, templates, answer kind, metrics, recipe, provenance.

Everything here is plain, frozen and checked when the task file is loaded; no heavy import.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cpm_tune.schema.options import Scoring
from cpm_tune.task.template import Template

SPLITS = ("train", "dev", "test")
Row = dict[str, Any]


@dataclass(frozen=True)
class BadRow:
    """What a reader yields in place of a row that cannot be used; `message` names file and line."""

    message: str


Reader = Callable[..., Iterator[tuple[str, Row | BadRow]]]
STEMS = {
    "train": ("train",),
    "dev": ("dev", "valid", "eval", "val", "validation"),
    "test": ("test", "test_public"),
}


@dataclass(frozen=True)
class Source:
    """Where a dataset comes from and how large it officially is.

    `sizes` are the published numbers of rows in train, dev and test, often rounded; None if there
    is no such split. `editions` are exact numbers by the name of an edition, None where not known.
    `checksums` are the SHA-256 of known official files, with the edition that each belongs to.
    """

    title: str
    paper: str
    licence: str
    obtain: str
    sizes: tuple[int | None, int | None, int | None] = (None, None, None)
    editions: Mapping[str, tuple[int | None, int | None, int | None]] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)

    def edition(self, split: str, n: int, sha256: Sequence[str]) -> str:
        """The edition of a split with `n` rows in files of these checksums, and by what it is
        known; "" if it is not."""
        by_file = {self.checksums.get(one, "") for one in sha256}
        if len(by_file) == 1 and (name := by_file.pop()):
            return f"{name} (official files)"
        names = [name for name, size in self._exact(split).items() if name and size == n]
        return f"{' or '.join(names)} (by its number of rows)" if names else ""

    def size_note(self, split: str, n: int) -> str:
        """A note on `n` rows of a split, if its exact numbers are known and `n` is none of them nor
        near the published one (within a twentieth, or 50 rows of a small split), else ""."""
        exact = self._exact(split)
        if not exact or n in exact.values() or self._near(split, n):
            return ""
        sizes = []
        for size in dict.fromkeys(exact.values()):
            names = " and ".join(name for name in exact if name and exact[name] == size)
            sizes.append(f"{size:,} ({names})" if names else f"{size:,}")
        return f"{split} has {n:,} rows, officially {' or '.join(sizes)}"

    def size_warning(self, split: str, n: int) -> str:
        """A warning about `n` rows of a split whose published number is rounded, if `n` is far from
        that, else ""; a rounded number is no reason to call runs not comparable."""
        if self._exact(split) or self._near(split, n):
            return ""
        about = self.sizes[SPLITS.index(split)]
        return f"{split} has {n:,} rows; the published number, which is rounded, is {about:,}"

    def _exact(self, split: str) -> dict[str, int]:
        """The exact numbers of rows by edition; a published one that is not rounded has no name."""
        at = SPLITS.index(split)
        exact = {name: size for name, sizes in self.editions.items() if (size := sizes[at])}
        official = self.sizes[at]
        return exact | ({"": official} if official and official % 100 else {})

    def _near(self, split: str, n: int) -> bool:
        official = self.sizes[SPLITS.index(split)]
        return official is None or abs(n - official) <= max(50, official / 20)


@dataclass(frozen=True)
class Files:
    """The files of a dataset, and what a row is.

    `columns` are the fields each row has, in the order of a table without header; those in `texts`
    are lists of texts, those in `structures` any JSON value, the others texts. `aliases` maps other
    spellings in official files to these. Those in `blank` may be empty without a warning.

    `names` gives what the files of each split may be called: a stem ("train"), a name ("a.txt"), a
    pattern ("*/train.json"), or a tuple of these that are read together, in order.

    `parts` are folders with one file of a pattern each; runs report which of them are missing.
    Files called as in `replaced` are not taken if another file of their split is there. `whole`
    names a file that has the rows of all splits.

    `rows` turns one official record (an object of a .jsonl or .json file, a line's cells by column
    of a table) into rows; it may yield none or several, and raises ValueError for a record that is
    wrong. Without it a record is a row. `read(paths, split)` replaces the readers for any other
    format; see `cpm_tune.data.readers`. Its third parameter, if it has one, is the `Layout` in
    which those readers note what is odd.
    """

    columns: tuple[str, ...]
    texts: tuple[str, ...] = ()
    structures: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, tuple[str | tuple[str, ...], ...]] = field(
        default_factory=lambda: dict(STEMS)
    )
    blank: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    rows: Callable[[Any], Iterable[Row]] | None = None
    read: Reader | None = None


@dataclass(frozen=True)
class Choice:
    """One of a fixed set of labels: the values of `column` in the files, in order."""

    labels: tuple[int | str, ...]
    column: str = "label"


@dataclass(frozen=True)
class Options:
    """One of the row's own options (a column of texts, at most `most`); `column` has its
    number from 0."""

    options: str = "options"
    column: str = "answer"
    most: int = 4


@dataclass(frozen=True)
class Rank:
    """The row's documents (a column of texts) in an order; `column` (a structure) has their
    grades, numbers from 0, in the files' order. Training separates a best document from the
    others."""

    options: str = "documents"
    column: str = "grades"


@dataclass(frozen=True)
class Generate:
    """A text, generated by the backbone.

    `column` is the text to learn, `gold` the column that metrics compare with (default: the same).
    `parse(text, row)` turns the generated text into a prediction of gold's form; if it returns None
    or raises ValueError the answer counts as unparsed and scores as wrong.
    """

    column: str = "target"
    gold: str = ""
    parse: Callable[[str, Row], Any] | None = None
    max_new_tokens: int = 64
    beams: int = 3
    n_best: int = 1


Answer = Choice | Options | Rank | Generate


@dataclass(frozen=True)
class Submission:
    """The file that the benchmark's organisers score.

    `fill(record, predictions)` returns the official record with the predictions of its rows, in
    order, in place; it is written as a line of `file`, or, if the file is one JSON document,
    `document` makes that from all of them.

    The way back needs no code if the file is read like the data and its answers are the
    predictions. Otherwise `read(record, official, rows)` returns the prediction for each row of the
    official record from the record handed in, and raises ValueError for what is wrong.

    `also` is another form of the same predictions, written beside the first one.
    """

    file: str
    fill: Callable[[Any, Sequence[Any]], Any]
    document: Callable[[list[Any]], Any] | None = None
    read: Callable[[Any, Any, Sequence[Row]], Sequence[Any]] | None = None
    also: Submission | None = None

    @property
    def forms(self) -> tuple[Submission, ...]:
        """This form and the others that are written beside it."""
        return (self, *(self.also.forms if self.also else ()))


@dataclass(frozen=True)
class NamedRecipe:
    """Settings as published, which replace the task's own: --recipe NAME.

    `settings` are those of `recipe`, `template` and `scoring` what they were used with (the task's
    first template, the template's own rule).
    """

    settings: Mapping[str, Any]
    template: str | None = None
    scoring: Scoring | None = None


@dataclass(frozen=True)
class Task:
    """One dataset. See CONTRIBUTING.md for how to add one.

    `metrics` names metrics of `cpm_tune.metrics`; the first one ranks and selects. `templates`: the
    first one is the default; `earlier_templates` are versions that only runs of before use.
    `recipe` holds defaults of `train.*`, `encode.*` and `decode.*` settings, `sample_recipe` what
    differs on the sample data (small, and meant for the bundled backbone), `recipes` others by
    name. `published` maps a row
    name to a test score of the ranking metric, from `published_source`; `published_scoring` maps
    those rows whose options were scored by a known
    rule to it. `protocol` describes in prose what is read and scored, and what differs from
    the benchmark's own statement.
    """

    name: str
    version: int
    capability: str
    kind: str
    source: Source
    files: Files
    answer: Answer
    templates: tuple[Template, ...]
    metrics: tuple[str, ...]
    earlier_templates: tuple[Template, ...] = ()
    suites: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    sample_recipe: Mapping[str, Any] = field(default_factory=dict)
    recipes: Mapping[str, NamedRecipe] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)
    published_source: str = ""
    published_scoring: Mapping[str, str] = field(default_factory=dict)
    protocol: str = ""
    submission: Submission | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", self.name):
            raise ValueError(f"task name '{self.name}' may contain only a-z, 0-9, '-' and '_'")
        if not self.templates or not self.metrics:
            raise ValueError("a task needs at least one template and one metric")
        for what, value in (
            ("metrics", self.metrics),
            ("templates", self.templates),
            ("suites", self.suites),
            ("files.columns", self.files.columns),
            ("files.texts", self.files.texts),
            ("files.structures", self.files.structures),
            ("answer.labels", getattr(self.answer, "labels", ())),
        ):
            if not isinstance(value, tuple):
                raise TypeError(f"{what} must be a tuple, such as ('a', 'b') or ('a',)")
            if len(set(value)) != len(value):
                raise ValueError(f"{what} names something twice")
        if not isinstance(self.version, int) or len(self.source.sizes) != 3:
            raise ValueError(
                "version must be a whole number, and source.sizes three: of train, dev and test"
            )
        for split in SPLITS:
            if not isinstance(self.files.names.get(split), tuple):
                raise TypeError(f"files.names must give '{split}' a tuple of names")
        parse = getattr(self.answer, "parse", None)
        if parse is not None and not callable(parse):
            raise TypeError("answer.parse must be a function of text and row")
        names = [template.name for template in self.templates]
        if len(set(names)) != len(names):
            raise ValueError("two templates have the same name; give each its own")
        self._check_columns()
        for template in self.templates:
            template.check(self.shown, self.answer_kind, self.n_options)

    def _check_columns(self) -> None:
        answer, files = self.answer, self.files
        for name in (*files.texts, *files.structures, *self.hidden):
            if name not in files.columns:
                raise ValueError(f"'{name}' is not one of the columns")
        if "id" in files.columns or ("target" in files.columns and answer.column != "target"):
            raise ValueError("columns may not be called 'id' or 'target'")
        if isinstance(answer, Options | Rank) and answer.options not in files.texts:
            raise ValueError(f"the options '{answer.options}' must be a column of files.texts")
        if isinstance(answer, Rank) and answer.column not in files.structures:
            raise ValueError(f"the grades '{answer.column}' must be a column of files.structures")

    @property
    def hidden(self) -> tuple[str, ...]:
        """The columns with the answer; no template shows them, a test split may lack them."""
        gold = getattr(self.answer, "gold", "")
        return (self.answer.column, *([gold] if gold and gold != self.answer.column else []))

    @property
    def shown(self) -> tuple[str, ...]:
        """The columns that a template may show."""
        return tuple(
            name
            for name in self.files.columns
            if name not in self.hidden and name not in self.files.structures
        )

    @property
    def answer_kind(self) -> str:
        """choice, options, rank or generate."""
        return type(self.answer).__name__.lower()

    @property
    def n_options(self) -> int:
        """The largest number of options a row can have; 0 if there is no limit or no option."""
        if isinstance(self.answer, Choice):
            return len(self.answer.labels)
        return self.answer.most if isinstance(self.answer, Options) else 0

    def template(self, name: str | None) -> Template | None:
        """Return the template of that name (None: the default), or None if there is none."""
        if name is None:
            return self.templates[0]
        return next((t for t in self.templates if t.name == name), None)

    def earlier_template(self, name: str, version: int) -> Template | None:
        """Return a template's earlier version, or None if there is none."""
        at = (name, version)
        known = (*self.templates, *self.earlier_templates)
        return next((t for t in known if (t.name, t.version) == at), None)

    def template_of(self, name: str, sha256: str) -> Template | None:
        """Return the template that a run was made with, in its version; None if it is gone."""
        known = (*self.templates, *self.earlier_templates)
        return next((t for t in known if (t.name, t.sha256) == (name, sha256)), None)
