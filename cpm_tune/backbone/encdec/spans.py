"""CPM-2's noise: of every document some spans are taken out, and a sentinel stands for each.

As in CPM-2-Pretrain (MIT): 15% of a document's tokens, its <eod> among them, in spans of 3 on
average; text and spans alternate, so a document begins with text and ends with a span. The encoder
reads the text with a sentinel for each span, numbered from <s_0> in every row; the decoder writes
each sentinel and its span, and one more sentinel at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DENSITY, MEAN_LENGTH = 0.15, 3.0
TokenIds = NDArray[np.int64]
Span = tuple[int, int]  # first token, one after the last


def draw_spans(generator: np.random.Generator, length: int) -> list[Span]:
    """Draw the spans of a document of `length` tokens, at least one of them."""
    if length < 2:
        return [(0, length)] if length else []
    noise = min(max(round(length * DENSITY), 1), length - 1)
    n = max(min(round(noise / MEAN_LENGTH), length - noise), 1)
    taken, kept = (_segments(generator, size, n) for size in (noise, length - noise))
    ends = np.cumsum(np.stack((kept, taken), axis=1).reshape(-1)).tolist()
    return list(zip(ends[::2], ends[1::2], strict=True))


def _segments(generator: np.random.Generator, length: int, n: int) -> NDArray[np.int64]:
    """The sizes of `n` parts of `length`, each at least 1; all divisions are equally likely."""
    inner = np.sort(generator.choice(length - 1, n - 1, replace=False)) + 1
    return np.diff(np.concatenate(([0], inner, [length])))


def draw_row(generator: np.random.Generator, ids: TokenIds, end: int) -> list[Span]:
    """Draw the spans of each document (up to `end`, or of what is left of it) in a row."""
    spans: list[Span] = []
    stops = np.flatnonzero(ids == end) + 1
    start = 0
    for stop in [*stops.tolist(), len(ids)]:
        spans += [(start + a, start + b) for a, b in draw_spans(generator, stop - start)]
        start = stop
    return spans


def taken_out(
    ids: TokenIds, spans: Sequence[Span], sentinels: Sequence[int]
) -> tuple[TokenIds, TokenIds]:
    """What the encoder reads and what the decoder writes."""
    reads: list[TokenIds] = []
    writes: list[TokenIds] = []
    start = 0
    for number, (first, last) in enumerate(spans):
        sign = np.array([sentinels[number]], dtype=np.int64)
        reads += [ids[start:first], sign]
        writes += [sign, ids[first:last]]
        start = last
    reads.append(ids[start:])
    writes.append(np.array([sentinels[len(spans)]], dtype=np.int64))
    return np.concatenate(reads), np.concatenate(writes)


def put_back(reads: Sequence[int], writes: Sequence[int], sentinels: Sequence[int]) -> list[int]:
    """The text again: the way back of `taken_out`."""
    spans: dict[int, list[int]] = {}
    known, current = set(sentinels), list[int]()
    for token in writes:
        if token in known:
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    return [t for token in reads for t in (spans[token] if token in known else [token])]
