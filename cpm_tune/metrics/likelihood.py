"""What a model expects of the gold text: perplexity, and how near its expectations are."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cpm_tune.metrics.base import Metric, pairs
from cpm_tune.metrics.families import OURS, bootstrapped
from cpm_tune.metrics.intervals import BOOTSTRAP
from cpm_tune.metrics.parts import Sums, share

if TYPE_CHECKING:
    from cpm_tune.metrics.intervals import Array

LARGEST = sys.float_info.max  # stands for infinity, which JSON does not have


def metrics() -> Iterator[Metric]:
    """Yield perplexity and embedding_average."""
    signature = (
        f"perplexity|{OURS}|per token of the model's tokenizer, micro over examples|no likelihood "
        f"or probability 0: {LARGEST:.3g}|1..{LARGEST:.3g}|{BOOTSTRAP}"
    )
    score = bootstrapped(_perplexity)
    yield Metric("perplexity", signature, False, "own", "nll", score, _perplexity)
    signature = (
        f"embedding_average|{OURS}|cosine of the summed input embeddings of the most probable "
        "tokens, given the gold text so far, and of the gold text's tokens, not below 0, mean over "
        f"examples|0..1|{BOOTSTRAP}"
    )
    score = bootstrapped(_cosines)
    yield Metric("embedding_average", signature, True, "0..1", "cosine", score, _cosines)


def _perplexity(predictions: Sequence[Any], targets: Sequence[Any]) -> Sums:
    rows = []
    for prediction, _ in pairs(predictions, targets):
        nll, tokens = (math.inf, 0) if prediction is None else prediction
        finite = math.isfinite(nll)
        rows.append((nll if finite else 0.0, tokens, not finite))
    return Sums(rows, _reduce)


def _cosines(predictions: Sequence[Any], targets: Sequence[Any]) -> Sums:
    values = [min(1.0, max(0.0, each or 0.0)) for each, _ in pairs(predictions, targets)]
    return Sums([(value, 1) for value in values], share, "mean")


def _reduce(sums: Array) -> Array:
    import numpy as np

    nll, tokens, infinite = sums.T
    with np.errstate(over="ignore"):
        value = np.exp(nll / np.maximum(tokens, 1))
    return np.where(infinite > 0, LARGEST, np.minimum(value, LARGEST))
