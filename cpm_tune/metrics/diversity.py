"""Distinct-n (Li et al., NAACL 2016): different character n-grams over all n-grams of all texts.

A bootstrap is not valid here: an example drawn twice repeats all its n-grams, so every resample has
a lower Distinct-n than the sample. Hence the jackknife, which only ever leaves an example out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from cpm_tune.metrics.base import Metric, Score, pairs
from cpm_tune.metrics.families import OURS
from cpm_tune.metrics.intervals import JACKKNIFE, jackknife
from cpm_tune.metrics.parts import Different


def metrics() -> Iterator[Metric]:
    """Yield Distinct-1..4 and the two that CPM-2's scorer prints, without each last n-gram."""
    for n in range(1, 5):
        name = f"distinct_{n}"
        signature = f"{name}|{OURS}|characters of all predictions, whitespace dropped"
        yield _metric(name, signature, n, False)
    for n in (3, 4):
        name = f"distinct_{n}_cpm2"
        signature = (
            f"{name}|{OURS}|characters of all predictions, each one's last {n}-gram left out"
        )
        yield _metric(name, signature, n, True)


def _metric(name: str, signature: str, n: int, cpm2: bool) -> Metric:
    score, parts = partial(_distinct, n, cpm2), partial(_parts, n, cpm2)
    return Metric(name, f"{signature}|0..1|{JACKKNIFE}", True, "0..1", "text", score, parts)


def _distinct(n: int, cpm2: bool, predictions: Sequence[Any], targets: Sequence[Any]) -> Score:
    each = _grams(n, cpm2, predictions, targets)
    holders = Counter(gram for grams in each for gram in grams)
    different, total = len(holders), sum(grams.total() for grams in each)
    # Leaving an example out loses the n-grams that no other example has.
    alone = [sum(holders[gram] == 1 for gram in grams) for grams in each]
    without = [
        (different - lost) / max(1, total - grams.total())
        for lost, grams in zip(alone, each, strict=True)
    ]
    return jackknife(different / max(1, total), without)


def _grams(
    n: int, cpm2: bool, predictions: Sequence[Any], targets: Sequence[Any]
) -> list[Counter[str]]:
    texts = [prediction or "" for prediction, _ in pairs(predictions, targets)]
    texts = [text.strip()[:-1] if cpm2 else "".join(text.split()) for text in texts]
    return [Counter(text[i : i + n] for i in range(len(text) - n + 1)) for text in texts]


def _parts(n: int, cpm2: bool, predictions: Sequence[Any], targets: Sequence[Any]) -> Different:
    return Different(_grams(n, cpm2, predictions, targets))
