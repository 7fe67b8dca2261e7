"""A run's errors, and two runs example by example, as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cpm_tune.analysis.errors import KINDS, Answered, Errors
from cpm_tune.analysis.page import Table
from cpm_tune.common.sizes import shortened
from cpm_tune.schema.record import OverlapRecord, ScoreRecord

_CUT = 60  # characters of a text


def error_tables(
    errors: Errors,
    answers: Sequence[Answered],
    overlap: Mapping[str, OverlapRecord],
    text_of: Callable[[int], str],
    examples: int,
) -> list[Table]:
    """The tables of a run's errors; `text_of` gives the text of an example."""
    tables = []
    if errors.labels:
        header = ("right \\ predicted", *errors.labels, "other")
        rows = [
            (label, *(f"{n:,}" for n in row))
            for label, row in zip(errors.labels, errors.confusion, strict=True)
        ]
        tables.append(Table("Confusion", header, rows))
    if errors.per_label:
        rows = [
            (e.label, f"{e.precision:.4f}", f"{e.recall:.4f}", f"{e.f1:.4f}", f"{e.n:,}")
            for e in errors.per_label
        ]
        tables.append(Table("Labels", ("label", "precision", "recall", "F1", "rows"), rows))
    if errors.buckets:
        tables.append(_scores("Scores by characters of the texts", errors.buckets))
    parts = {
        f"{what} {name}": score
        for name, each in overlap.items()
        for what, score in (("shared with", each.among), ("not shared with", each.without))
        if score is not None
    }
    if parts:
        tables.append(_scores("Scores by overlap", parts))
    if (c := errors.calibration) is not None:
        rows = [
            (f"from {b.low:.1f}", f"{b.n:,}", f"{b.confidence:.4f}", f"{b.accuracy:.4f}")
            for b in c.bins
        ]
        title = f"Calibration: ECE {c.ece:.4f}, Brier score {c.brier:.4f} ({c.n:,} rows)"
        tables.append(Table(title, ("probability", "rows", "mean of it", "right"), rows))
    if errors.surest and examples:
        rows = [_example(answers[number], text_of(number)) for number in errors.surest[:examples]]
        order = "the surest first" if errors.calibration else "in the order of the file"
        title = f"Wrong, {order} ({len(errors.surest):,} in all)"
        tables.append(Table(title, ("id", "text", "right", "predicted"), rows))
    return tables


def _scores(title: str, scores: Mapping[str, ScoreRecord]) -> Table:
    rows = [
        (name, f"{s.n:,}", f"{s.value:.4f}", f"[{s.low:.4f}, {s.high:.4f}]")
        for name, s in scores.items()
    ]
    return Table(title, ("rows", "n", "score", "95% interval"), rows)


def _example(answer: Answered, text: str) -> tuple[str, ...]:
    values = (answer.target, answer.prediction)
    return (answer.id, shortened(text, _CUT), *(shortened(str(v), _CUT) for v in values))


def diff_tables(
    kinds: Mapping[str, Sequence[int]],
    first: Sequence[Answered],
    second: Sequence[Answered],
    text_of: Callable[[int], str],
    examples: int,
) -> list[Table]:
    """The numbers of each kind, and its first examples."""
    n = len(first)
    counts = [
        (kind, f"{len(kinds[kind]):,}", f"{100 * len(kinds[kind]) / n:.1f}%") for kind in KINDS
    ]
    tables = [Table("Examples", ("", "rows", "share"), counts)]
    for kind in (KINDS[1], KINDS[2], KINDS[3]):
        rows = [
            (*_example(first[at], text_of(at)), shortened(str(second[at].prediction), _CUT))
            for at in kinds[kind][:examples]
        ]
        if rows:
            header = ("id", "text", "right", "first", "second")
            tables.append(Table(kind[0].upper() + kind[1:], header, rows))
    return tables
