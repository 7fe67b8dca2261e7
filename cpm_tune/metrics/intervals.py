"""Values with 95% intervals: Wilson's, the bootstrap over examples, the jackknife.

No value depends on the order of the examples, and every interval contains its value: if resampling
alone would leave it outside, the interval is widened to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cpm_tune.metrics.base import Score
from cpm_tune.metrics.parts import Sums

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

RESAMPLES = 1000
SEED = 0
CELLS = 2_000_000  # drawn at once: bounds the memory, whatever the number of examples

WILSON = "95% interval: Wilson"
BOOTSTRAP = f"95% interval: percentile bootstrap over examples, {RESAMPLES} resamples, seed {SEED}"
JACKKNIFE = "95% interval: normal, variance by the delete-one jackknife over examples"


def _holding(value: float, low: float, high: float, n: int) -> Score:
    return Score(value, min(low, value), max(high, value), n)


def wilson(right: int, n: int) -> Score:
    """The proportion of `right` in `n` with Wilson's score interval."""
    from scipy.stats import binomtest

    interval = binomtest(right, n).proportion_ci(0.95, method="wilson")
    return _holding(right / n, float(interval.low), float(interval.high), n)


def _resamples(n: int) -> Iterator[NDArray[np.int64]]:
    """Indices of resampled examples, (resamples, n) a block."""
    import numpy as np

    random = np.random.default_rng(SEED)
    block = max(1, CELLS // n)
    for start in range(0, RESAMPLES, block):
        yield random.integers(0, n, (min(block, RESAMPLES - start), n))


def _percentiles(value: float, resampled: Sequence[Array], n: int) -> Score:
    import numpy as np

    low, high = np.quantile(np.concatenate(resampled), (0.025, 0.975))
    return _holding(value, float(low), float(high), n)


def bootstrap(parts: Sums) -> Score:
    """A value that depends on the examples through sums of their statistics alone."""
    import numpy as np

    rows, reduce = parts.statistics, parts.reduce
    rows = rows[np.lexsort(rows.T)]
    n = len(rows)
    resampled = []
    for drawn in _resamples(n):
        cells = drawn + n * np.arange(len(drawn))[:, None]
        times = np.bincount(cells.ravel(), minlength=drawn.size).reshape(drawn.shape)
        resampled.append(reduce(times @ rows))
    return _percentiles(float(reduce(rows.sum(0, keepdims=True))[0]), resampled, n)


def bootstrap_median(values: Sequence[float]) -> Score:
    """The median of finite values."""
    import numpy as np

    ordered = np.sort(np.asarray(values, dtype=np.float64))
    resampled = [np.median(ordered[drawn], axis=1) for drawn in _resamples(len(ordered))]
    return _percentiles(float(np.median(ordered)), resampled, len(ordered))


def jackknife(value: float, without: Any) -> Score:
    """A value in 0..1, from the values `without` each of the n examples, (n,)."""
    import numpy as np

    others = np.sort(np.asarray(without, dtype=np.float64))
    n = len(others)
    half = 1.959963984540054 * float(np.sqrt((n - 1) * others.var()))
    return _holding(value, max(0.0, value - half), min(1.0, value + half), n)
