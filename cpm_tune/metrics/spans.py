"""Metrics of spans: typed spans (entities, tagged words) and the words of a segmentation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cpm_tune.metrics.base import Metric
from cpm_tune.metrics.families import OURS, Counts, micro


def metrics() -> Iterator[Metric]:
    """Yield the metrics of spans and of words."""
    definition = f"{OURS}|exact start, end and type, each span once"
    yield from micro("span_", "spans", definition, _spans)
    definition = (
        f"{OURS}|words as character spans with their text, as icwb2's score, whitespace dropped"
    )
    yield from micro("word_", "words", definition, _words)


def _spans(prediction: Iterable[Sequence[Any]] | None, target: Iterable[Sequence[Any]]) -> Counts:
    return _count({tuple(span) for span in prediction or ()}, {tuple(span) for span in target})


def _words(prediction: Iterable[str] | None, target: Iterable[str]) -> Counts:
    return _count(_as_spans(prediction or ()), _as_spans(target))


def _count(predicted: set[tuple[Any, ...]], gold: set[tuple[Any, ...]]) -> Counts:
    return len(predicted & gold), len(predicted), len(gold)


def _as_spans(words: Iterable[str]) -> set[tuple[Any, ...]]:
    """Words as (start, end, text): a generated word with other characters is not a hit."""
    spans, end = set(), 0
    for word in filter(None, ("".join(word.split()) for word in words)):
        start, end = end, end + len(word)
        spans.add((start, end, word))
    return spans
