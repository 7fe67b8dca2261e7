"""Metrics of corrections as edits: precision, recall and F0.5 against the best annotator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any

from cpm_tune.metrics.base import Metric
from cpm_tune.metrics.families import OURS, Counts, each, micro

BETA = 0.5

Edit = tuple[int, int, str]


def metrics() -> Iterator[Metric]:
    """Yield edit F0.5, precision and recall."""
    definition = (
        f"{OURS}|exact start, end and replacement|per sentence the annotator of the highest F0.5, "
        "then most hits, then fewest missed"
    )
    yield from micro("edit_", "edits", definition, each(_against_best), BETA)


def edits(source: str, corrected: str) -> list[Edit]:
    """The character edits that turn `source` into `corrected`, from left to right.

    (start, end, replacement): source[start:end] becomes the replacement; start == end inserts. Each
    is a longest run of changed characters in difflib's matching (the longest common block first,
    then either side of it), which is easy to read but not always the shortest script: predictions
    and gold corrections have to go through this one function.
    """
    matcher = SequenceMatcher(None, source, corrected, autojunk=False)
    return [
        (start, end, corrected[first:last])
        for tag, start, end, first, last in matcher.get_opcodes()
        if tag != "equal"
    ]


def _against_best(prediction: Iterable[Sequence[Any]] | None, target: Iterable[Any]) -> Counts:
    """The counts against one annotator; a correction that could not be parsed changes nothing.

    The M2 scorer takes the one that raises the F0.5 of all sentences so far, so that its result
    depends on their order; this choice looks at the sentence alone.
    """
    predicted = {tuple(edit) for edit in prediction or ()}
    annotators = [{tuple(edit) for edit in gold} for gold in target] or [set()]
    counts = [(len(predicted & gold), len(predicted), len(gold)) for gold in annotators]
    return max(counts, key=lambda c: (_sentence_f(*c), c[0], -c[2]))


def _sentence_f(hits: int, predicted: int, gold: int) -> float:
    below = predicted + BETA**2 * gold
    return (1 + BETA**2) * hits / below if below else 1.0
