"""Distinct-n (Li et al., NAACL 2016): different character n-grams over all n-grams of all texts.

A bootstrap is not valid here: an example drawn twice repeats all its n-grams, so every resample has
a lower Distinct-n than the sample. Hence the jackknife, which only ever leaves an example out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
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
        yield _metric(name, signature, n, _tight)
    for n in (3, 4):
        name = f"distinct_{n}_cpm2"
        signature = (
            f"{name}|{OURS}|characters of all predictions, each one's last {n}-gram left out"
        )
        earlier = _metric(name, signature, n, _stripped)
        now = _metric(name, f"{signature}, all spaces count", n, _as_it_is)
        yield replace(now, earlier=(earlier,))


Prepare = Callable[[str], str]


def _tight(text: str) -> str:
    return "".join(text.split())


def _stripped(text: str) -> str:
    return text.strip()[:-1]


def _as_it_is(text: str) -> str:
    return text[:-1]


def _metric(name: str, signature: str, n: int, prepare: Prepare) -> Metric:
    score, parts = partial(_distinct, n, prepare), partial(_parts, n, prepare)
    return Metric(name, f"{signature}|0..1|{JACKKNIFE}", True, "0..1", "text", score, parts)


def _distinct(
    n: int, prepare: Prepare, predictions: Sequence[Any], targets: Sequence[Any]
) -> Score:
    each = _grams(n, prepare, predictions, targets)
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
    n: int, prepare: Prepare, predictions: Sequence[Any], targets: Sequence[Any]
) -> list[Counter[str]]:
    texts = [prepare(prediction or "") for prediction, _ in pairs(predictions, targets)]
    return [Counter(text[i : i + n] for i in range(len(text) - n + 1)) for text in texts]


def _parts(
    n: int, prepare: Prepare, predictions: Sequence[Any], targets: Sequence[Any]
) -> Different:
    return Different(_grams(n, prepare, predictions, targets))
