"""A data set's card: sizes, lengths, answers, repeated and shared rows, shortcuts, truncation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cpm_tune.analysis.overlap import Fingerprints, Overlap, compare, in_corpus
from cpm_tune.analysis.shortcuts import shortcut_controls
from cpm_tune.analysis.texts import fields, option_column, sample, texts
from cpm_tune.common.progress import working
from cpm_tune.common.sizes import shortened
from cpm_tune.data.store import Split
from cpm_tune.metrics import get_metric
from cpm_tune.schema.record import ControlRecord
from cpm_tune.task import Choice, Generate, Options, Row, Task
from cpm_tune.task.answers import gold

_LOOKED_AT = 10_000  # rows whose lengths are measured
_ENCODED = 1_000  # rows that are encoded
_COMMON = 8  # answers that are listed
# From which share of rows a fault is one of the findings.
_REPEATED, _SHARED, _CONFLICTING, _TRUNCATED = 0.01, 0.05, 0.005, 0.01


@dataclass(frozen=True)
class Lengths:
    """Lengths in characters (or tokens): median, 95th percentile and longest."""

    median: int
    p95: int
    longest: int


@dataclass(frozen=True)
class Truncation:
    """Of `n` rows that were encoded, `truncated` were cut to `length` tokens; `share` is that of
    the rows."""

    length: int
    n: int
    truncated: int
    tokens: Lengths

    @property
    def share(self) -> float:
        """The share of the rows that were cut."""
        return self.truncated / self.n


@dataclass(frozen=True)
class SplitCard:
    """A split. `answers`: the most frequent labels or option numbers with their counts. `repeated`
    rows have the texts of an earlier row; `conflicting` texts have several answers."""

    name: str
    files: str
    n: int
    n_skipped: int
    labelled: bool
    lengths: Mapping[str, Lengths]
    answers: Mapping[str, int]
    repeated: int
    conflicting: int
    example: str
    truncation: Truncation | None = None
    in_corpus: int | None = None


@dataclass(frozen=True)
class Card:
    """A data set. `findings` are sentences on what makes its scores say less than they seem to."""

    task: str
    metric: str
    folder: str
    splits: tuple[SplitCard, ...]
    overlaps: tuple[Overlap, ...]
    constant: ControlRecord | None
    shortcuts: Mapping[str, ControlRecord]
    findings: tuple[str, ...]


def make_card(
    task: Task,
    folder: str,
    splits: Mapping[str, Split],
    truncation: Callable[[Iterable[Row]], Truncation] | None = None,
    corpus: Callable[[], Iterable[str]] | None = None,
) -> Card:
    """The card of splits that have been read. `truncation` encodes rows; `corpus` returns the
    documents of a pre-training corpus."""
    with working("comparing the rows"):
        prints = {name: Fingerprints(task, split, None) for name, split in splits.items()}
        pairs = [(a, b) for a, b in (("test", "train"), ("test", "dev"), ("dev", "train"))]
        overlaps = tuple(
            compare(prints[a], prints[b]) for a, b in pairs if a in prints and b in prints
        )
    constant, shortcuts = None, {}
    if not isinstance(task.answer, Generate) and {"train", "test"} <= set(splits):
        with working("scoring shortcuts"):
            shortcuts = shortcut_controls(task, splits["train"], splits["test"])
            constant = _best_constant(task, splits["test"]) if shortcuts else None
    cards = tuple(
        _split_card(task, split, prints[name], truncation) for name, split in splits.items()
    )
    if corpus is not None:
        with working("reading the corpus"):
            cards = _with_corpus(task, splits, cards, corpus())
    findings = _findings(cards, overlaps, constant, shortcuts)
    return Card(
        task.name, task.metrics[0], folder, cards, overlaps, constant, shortcuts, tuple(findings)
    )


def _split_card(
    task: Task,
    split: Split,
    prints: Fingerprints,
    truncation: Callable[[Iterable[Row]], Truncation] | None,
) -> SplitCard:
    rows = split.rows.at(sample(split.rows, _LOOKED_AT))
    names, listed = fields(task), option_column(task)
    each: dict[str, list[int]] = {
        name: [len(texts([name], row)[0]) for row in rows] for name in names
    }
    if listed:
        each[listed] = [len(option) for row in rows for option in row[listed]]
    if isinstance(task.answer, Generate) and split.labelled:
        each[task.answer.column] = [len(row["target"] or "") for row in rows]
    repeats = prints.repeats()
    return SplitCard(
        name=split.file.split,
        files=", ".join(path.name for path in split.file.paths),
        n=len(split),
        n_skipped=split.n_skipped,
        labelled=split.labelled,
        lengths={name: lengths(values) for name, values in each.items()},
        answers=_answers(task, split),
        repeated=repeats.rows,
        conflicting=repeats.conflicting if split.labelled else 0,
        example=repeats.example if split.labelled else "",
        truncation=truncation(split.rows.at(sample(split.rows, _ENCODED))) if truncation else None,
    )


def lengths(values: Sequence[int]) -> Lengths:
    """The median (of an even number the lower one), the 95th percentile, the longest."""
    ordered = sorted(values) or [0]
    return Lengths(
        ordered[(len(ordered) - 1) // 2], ordered[(len(ordered) - 1) * 95 // 100], ordered[-1]
    )


def _answers(task: Task, split: Split) -> dict[str, int]:
    """How often each label or option is the answer, the most frequent first."""
    if not split.labelled or not isinstance(task.answer, Choice | Options):
        return {}
    counts = Counter(split.rows.targets())
    if isinstance(task.answer, Choice):
        named = {str(task.answer.labels[target]): n for target, n in counts.items()}
    else:
        named = {f"option {target + 1}": n for target, n in counts.items()}
    ranked = sorted(named.items(), key=lambda each: (-each[1], each[0]))
    rest = sum(n for _, n in ranked[_COMMON:])
    return dict(ranked[:_COMMON]) | ({f"{len(ranked) - _COMMON} others": rest} if rest else {})


def _best_constant(task: Task, test: Split) -> ControlRecord | None:
    """The best score that one and the same answer to every row gets."""
    metric = get_metric(task.metrics[0])
    rows = test.rows.at(sample(test.rows, _LOOKED_AT))
    golds = [gold(task, row) for row in rows]
    constants: list[list[Any]]
    if isinstance(task.answer, Choice):
        constants = [[label] * len(rows) for label in task.answer.labels]
    elif isinstance(task.answer, Options):
        most = max(len(row[task.answer.options]) for row in rows)
        constants = [[number] * len(rows) for number in range(most)]
    else:
        constants = [[[-float(i) for i in range(len(grades))] for grades in golds]]
    scores = [metric.score(constant, golds) for constant in constants]
    best = max(scores, key=lambda score: score.value if metric.higher_is_better else -score.value)
    return ControlRecord(
        value=best.value,
        low=best.low,
        high=best.high,
        note="one answer for all rows, the best on test",
    )


def _with_corpus(
    task: Task,
    splits: Mapping[str, Split],
    cards: Sequence[SplitCard],
    documents: Iterable[str],
) -> tuple[SplitCard, ...]:
    """The cards with the number of rows that have text of a corpus in them."""
    names, listed = fields(task), option_column(task)
    rows: list[list[str]] = []
    starts = [0]
    for card in cards:
        split = splits[card.name]
        for row in split.rows:
            rows.append([*texts(names, row), *(row[listed] if listed else [])])
        starts.append(len(rows))
    hit = in_corpus(rows, documents)
    return tuple(
        replace(card, in_corpus=sum(start <= number < end for number in hit))
        for card, start, end in zip(cards, starts, starts[1:], strict=False)
    )


def _findings(
    splits: Sequence[SplitCard],
    overlaps: Sequence[Overlap],
    constant: ControlRecord | None,
    shortcuts: Mapping[str, ControlRecord],
) -> Iterable[str]:
    for name, control in shortcuts.items():
        if constant is not None and control.low > constant.high:
            yield (
                f"{name} alone gets {control.value:.4f} of test, one answer for all rows "
                f"{constant.value:.4f}: {control.note}"
            )
    for overlap in overlaps:
        if len(overlap.near) >= _REPEATED * overlap.n:
            yield (
                f"{percent(len(overlap.near), overlap.n)} of {overlap.split} is in "
                f"{overlap.other} as well ({overlap_text(overlap)})"
            )
        if len(overlap.contradicting) >= max(1, _CONFLICTING * overlap.n):
            yield (
                f"{percent(len(overlap.contradicting), overlap.n)} of {overlap.split} is in "
                f"{overlap.other} with another answer"
            )
        if len(overlap.shared) >= _SHARED * overlap.n:
            yield (
                f"{percent(len(overlap.shared), overlap.n)} of {overlap.split} has one of several "
                f"texts in common with {overlap.other}"
            )
    for split in splits:
        if split.conflicting >= max(1, _CONFLICTING * split.n):
            yield (
                f"{split.conflicting:,} texts of {split.name} have several answers, such as "
                f"{shortened(split.example, 60)!r}"
            )
        if split.truncation and split.truncation.share >= _TRUNCATED:
            yield (
                f"{percent(split.truncation.truncated, split.truncation.n)} of {split.name} is "
                f"truncated at {split.truncation.length} tokens"
            )
        if split.in_corpus is not None and split.in_corpus >= max(1, _REPEATED * split.n):
            yield f"{percent(split.in_corpus, split.n)} of {split.name} has text of the corpus"


def overlap_text(overlap: Overlap) -> str:
    """The numbers of an overlap, in words."""
    same, swapped = len(overlap.exact), len(overlap.swapped)
    normal = len(overlap.normalised) - same - swapped
    near = len(overlap.near) - len(overlap.normalised)
    text = f"{same:,} the same, {normal:,} but for punctuation, {near:,} nearly the same"
    if overlap.n_near < max(overlap.n, overlap.n_other):
        text += f" of {overlap.n_near:,} rows a split"
    if swapped:
        text += f", {swapped:,} with their texts in another order"
    if overlap.contradicting:
        text += f"; of them with another answer: {len(overlap.contradicting):,}"
    return text


def percent(part: int, whole: int) -> str:
    """A share in percent."""
    return f"{100 * part / whole:.1f}%"
