"""Metrics of spans: typed spans (entities, tagged words) and the words of a segmentation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from cpm_tune.metrics.base import Metric
from cpm_tune.metrics.families import OURS, Counts, each, micro


def metrics() -> Iterator[Metric]:
    """Yield the metrics of spans and of words."""
    definition = f"{OURS}|exact start, end and type, each span once"
    yield from micro("span_", "spans", definition, each(_spans))
    definition = (
        f"{OURS}|words as character spans with their text, as icwb2's score, whitespace dropped"
    )
    of_before = micro("word_", "words", definition, each(partial(_words, False)))
    definition += "|not parsed: one word"
    of_now = micro("word_", "words", definition, each(partial(_words, True)))
    for metric, earlier in zip(of_now, of_before, strict=True):
        yield replace(metric, earlier=(earlier,))


def _spans(prediction: Iterable[Sequence[Any]] | None, target: Iterable[Sequence[Any]]) -> Counts:
    return _count({tuple(span) for span in prediction or ()}, {tuple(span) for span in target})


def _words(whole: bool, prediction: Iterable[int | str] | None, target: Iterable[str]) -> Counts:
    """The counts of a sentence; `whole`: one that could not be parsed is one word, as it is in the
    submission."""
    if prediction is None:
        prediction = ["".join(target)] if whole else ()
    return _count(_as_spans(prediction), _as_spans(target))


def _count(predicted: set[tuple[Any, ...]], gold: set[tuple[Any, ...]]) -> Counts:
    return len(predicted & gold), len(predicted), len(gold)


def _as_spans(words: Iterable[int | str]) -> set[tuple[Any, ...]]:
    """Words as (start, end, text): a generated word with other characters is not a hit. A number
    stands for as many characters, which belong to a word of the sentence before."""
    spans, end = set(), 0
    for word in words:
        if isinstance(word, int):
            end += word
        elif text := "".join(word.split()):
            spans.add((end, end + len(text), text))
            end += len(text)
    return spans
