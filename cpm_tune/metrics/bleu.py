"""BLEU of a corpus, 0..100: by sacrebleu, and by nltk as CPM-2 computed it.

Both libraries give a sentence's n-gram counts and turn summed counts into a score; the bootstrap
resamples those counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from cpm_tune.metrics.base import Metric, pairs, references
from cpm_tune.metrics.families import bootstrapped
from cpm_tune.metrics.intervals import BOOTSTRAP
from cpm_tune.metrics.parts import Sums

if TYPE_CHECKING:
    from cpm_tune.metrics.intervals import Array


def metrics() -> Iterator[Metric]:
    """Yield the BLEU variants."""
    variants = [("zh", "zh", 4), ("13a", "13a", 4), *((f"{n}", "char", n) for n in range(1, 5))]
    for suffix, tokenize, order in variants:
        name = f"bleu_{suffix}"
        theirs = (
            f"nrefs:var|case:mixed|eff:no|tok:{tokenize}|smooth:exp|version:{version('sacrebleu')}"
        )
        signature = f"{name}|sacrebleu|{theirs}|n-grams up to {order}|0..100|{BOOTSTRAP}"
        parts = partial(_sacrebleu, tokenize, order)
        yield Metric(name, signature, True, "0..100", "text", bootstrapped(parts), parts)
    nltk = f"nltk {version('nltk')}|corpus_bleu|weights 1/4|smoothing method3"
    versions = []
    for strip, spaces in ((True, "spaces count"), (False, "all spaces count")):
        signature = f"bleu_4_cpm2|{nltk}|characters, {spaces}|0..100|{BOOTSTRAP}"
        cpm2 = partial(_cpm2, strip)
        versions.append(
            Metric("bleu_4_cpm2", signature, True, "0..100", "text", bootstrapped(cpm2), cpm2)
        )
    yield replace(versions[1], earlier=(versions[0],))


def _sacrebleu(
    tokenize: str, order: int, predictions: Sequence[Any], targets: Sequence[Any]
) -> Sums:
    from sacrebleu.metrics import BLEU

    # A sentence's counts do not depend on `effective_order`; without it sacrebleu warns.
    sentences = BLEU(tokenize=tokenize, max_ngram_order=order, effective_order=True)
    rows = []
    for prediction, target in pairs(predictions, targets):
        s = sentences.sentence_score(prediction or "", references(target))
        rows.append((s.sys_len, s.ref_len, *s.counts, *s.totals))

    def reduce(sums: Array) -> Array:
        import numpy as np

        values = [
            BLEU.compute_bleu(
                row[2 : 2 + order], row[2 + order :], *row[:2], "exp", max_ngram_order=order
            ).score
            for row in sums.astype(int).tolist()
        ]
        return np.array(values)

    return Sums(rows, reduce)


def _cpm2(strip: bool, predictions: Sequence[Any], targets: Sequence[Any]) -> Sums:
    """`nltk.translate.bleu_score.corpus_bleu` with its parts applied to resampled sums.

    `strip` drops whitespace at the ends, which CPM-2's code does not.
    """
    from nltk.translate.bleu_score import (
        Fraction,
        SmoothingFunction,
        brevity_penalty,
        closest_ref_length,
        modified_precision,
    )

    rows = []
    for prediction, target in pairs(predictions, targets):
        texts = prediction or "", *references(target)
        predicted, *golds = (list(text.strip() if strip else text) for text in texts)
        precisions = [modified_precision(golds, predicted, n) for n in range(1, 5)]
        counts = [part for p in precisions for part in (p.numerator, p.denominator)]
        rows.append((len(predicted), closest_ref_length(golds, len(predicted)), *counts))
    smooth = SmoothingFunction().method3

    def one(sums: list[int]) -> float:
        if not sums[2]:
            return 0.0
        parts = zip(sums[2::2], sums[3::2], strict=True)
        precisions = smooth([Fraction(hits, of, _normalize=False) for hits, of in parts])
        logarithm = math.fsum(0.25 * math.log(p) for p in precisions)
        return 100 * float(brevity_penalty(sums[1], sums[0])) * math.exp(logarithm)

    def reduce(sums: Array) -> Array:
        import numpy as np

        return np.array([one(row) for row in sums.astype(int).tolist()])

    return Sums(rows, reduce)
