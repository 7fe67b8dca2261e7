"""Is one system better than another? Tests and intervals on the same examples.

Approximate randomisation: Noreen (1989); paired bootstrap: Efron and Tibshirani (1993), for corpus
metrics Koehn (EMNLP 2004); McNemar (1947), with continuity correction (Edwards 1948) from 25
discordant pairs; Holm (1979). Nothing here depends on anything but its arguments and the seed.

A system has one list of predictions per seed. If the metric is a mean of examples' scores, a system
counts with each example's mean over its seeds. Otherwise the metric is computed for each seed and
averaged, every seed with the same examples drawn or exchanged. Either way the results reflect the
sampling of examples, not of seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cpm_tune.metrics import Metric
from cpm_tune.metrics.parts import Parts, Sums, share

if TYPE_CHECKING:
    from cpm_tune.metrics.parts import Array, Form

RESAMPLES = 10_000
COARSE = 1_000  # resamples if each value is computed from all texts
SEED = 0
FEW = 25  # discordant pairs below which McNemar's test is exact
TESTS = ("auto", "permutation", "mcnemar")
_CELLS = 2_000_000
_EQUAL = 1e-12  # a rearranged sum differs from the sum by less

PerSeed = Sequence[Sequence[Any]]  # a list of predictions for each seed


@dataclass(frozen=True)
class ComparisonResult:
    """Two systems on the same examples. Values are means over seeds, `difference` is a - b with its
    95% interval, `p` is two-sided."""

    n: int
    seeds: tuple[int, int]
    a: float
    b: float
    a_std: float | None
    b_std: float | None
    difference: float
    low: float | None
    high: float | None
    interval: str
    p: float
    test: str
    form: Form


def compare(
    metric: Metric,
    a: PerSeed,
    b: PerSeed,
    targets: Sequence[Any],
    *,
    test: str = "auto",
    resamples: int = RESAMPLES,
    seed: int = SEED,
    with_interval: bool = True,
) -> ComparisonResult:
    """Compare two systems, each a list of predictions per seed, in the order of the targets.

    `test` is one of TESTS; auto is McNemar's for one seed per system and a metric that is right or
    wrong, approximate randomisation otherwise. Raises ValueError if McNemar's does not apply.
    """
    n = len(targets)
    each = [[metric.parts(predictions, targets) for predictions in seeds] for seeds in (a, b)]
    values = [[_whole(parts) for parts in seeds] for seeds in each]
    form = each[0][0].form
    binary = form == "right" and len(a) == len(b) == 1
    if test == "mcnemar" and not binary:
        raise ValueError(
            "McNemar's test needs one seed per row and a metric that is right or wrong"
        )
    pairs = _pairs(metric, a, b, each, targets)
    if not pairs[0].smooth:
        resamples = min(resamples, COARSE)
    if binary and test != "permutation":
        p, name = mcnemar(*_discordant(each))
    else:
        p, name = randomisation(pairs, n, resamples, seed)
    low = high = None
    method = ""
    means = [statistics.fmean(seeds) for seeds in values]
    difference = means[0] - means[1]
    if with_interval:
        low, high, method = _interval(pairs, n, difference, resamples, seed)
    spread = [statistics.stdev(seeds) if len(seeds) > 1 else None for seeds in values]
    return ComparisonResult(
        n=n,
        seeds=(len(a), len(b)),
        a=means[0],
        b=means[1],
        a_std=spread[0],
        b_std=spread[1],
        difference=difference,
        low=low,
        high=high,
        interval=method,
        p=p,
        test=name,
        form=form,
    )


def mcnemar(only_a: int, only_b: int) -> tuple[float, str]:
    """The two-sided p of McNemar's test and its name, from the numbers of examples that one
    system alone has right."""
    from scipy.stats import binomtest, chi2

    discordant = only_a + only_b
    if discordant < FEW:
        p = float(binomtest(only_a, discordant).pvalue) if discordant else 1.0
        return p, "McNemar, exact"
    statistic = (abs(only_a - only_b) - 1) ** 2 / discordant
    return float(chi2.sf(statistic, 1)), "McNemar, continuity correction"


def randomisation(
    pairs: Sequence[Parts], n: int, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, str]:
    """The two-sided p of approximate randomisation and its name.

    Each of `pairs` has the n examples of a and then those of b; the statistic is the difference
    of the values, averaged over pairs. An example is exchanged in all pairs or in none. With few
    examples all exchanges are made, and the p is exact.
    """
    import numpy as np

    observed = abs(_differences(pairs, np.ones((1, n)), np.zeros((1, n)))[0])
    bound = observed - _EQUAL * max(1.0, observed)
    exact = 2**n <= resamples
    masks = _all_masks(n) if exact else _random_masks(n, resamples, seed)
    extreme = sum(int((abs(_differences(pairs, 1 - mask, mask)) >= bound).sum()) for mask in masks)
    if exact:
        return extreme / 2**n, f"permutation, exact (all {2**n:,} exchanges)"
    return (
        (extreme + 1) / (resamples + 1),
        f"approximate randomisation, {resamples:,} exchanges, seed {seed}",
    )


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given."""
    adjusted, running = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        running = max(running, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = running
    return adjusted


def verdict(difference: float, p: float, higher_is_better: bool, level: float = 0.05) -> str:
    """win, tie or loss of the first system: a tie unless the (adjusted) p is below the level."""
    if p >= level or difference == 0:
        return "tie"
    return "win" if (difference > 0) == higher_is_better else "loss"


def _whole(parts: Parts) -> float:
    import numpy as np

    return float(parts.values(np.ones((1, len(parts))))[0])


def _pairs(
    metric: Metric, a: PerSeed, b: PerSeed, each: Sequence[Sequence[Parts]], targets: Sequence[Any]
) -> list[Parts]:
    """The examples of a, then those of b: once with means over seeds, or for each pair of seeds,
    every seed of either system equally often."""
    import numpy as np

    if each[0][0].form != "corpus":
        means = [
            np.mean([p.statistics[:, 0] for p in seeds if isinstance(p, Sums)], axis=0)
            for seeds in each
        ]
        scores = np.concatenate(means)
        return [Sums(np.stack([scores, np.ones_like(scores)], axis=1), share, "mean")]
    both = list(targets) * 2
    return [
        metric.parts([*a[k % len(a)], *b[k % len(b)]], both)
        for k in range(math.lcm(len(a), len(b)))
    ]


def _discordant(each: Sequence[Sequence[Parts]]) -> tuple[int, int]:
    first, second = (seeds[0].statistics[:, 0] for seeds in each if isinstance(seeds[0], Sums))
    return int((first > second).sum()), int((second > first).sum())


def _differences(pairs: Sequence[Parts], weights: Array, exchanged: Array) -> Array:
    """a - b (b,) if each system's examples count `weights` (b, n) times and the other one's
    `exchanged` (b, n) times."""
    import numpy as np

    first, second = np.hstack([weights, exchanged]), np.hstack([exchanged, weights])
    differences: Array = np.mean([p.values(first) - p.values(second) for p in pairs], axis=0)
    return differences


def _all_masks(n: int) -> Iterator[Array]:
    import numpy as np

    numbers = np.arange(2**n)[:, None]
    yield (numbers >> np.arange(n) & 1).astype(np.float64)


def _random_masks(n: int, resamples: int, seed: int) -> Iterator[Array]:
    import numpy as np

    random = np.random.default_rng(seed)
    for block in _blocks(n, resamples):
        yield random.integers(0, 2, (len(block), n), dtype=np.int8).astype(np.float64)


def _blocks(n: int, resamples: int) -> Iterator[range]:
    """The numbers of the resamples of n examples, as many at a time as fit _CELLS."""
    size = max(1, _CELLS // n)
    for start in range(0, resamples, size):
        yield range(start, min(start + size, resamples))


def _interval(
    pairs: Sequence[Parts], n: int, difference: float, resamples: int, seed: int
) -> tuple[float, float, str]:
    """The 95% interval of the difference, which it contains, and the method's name."""
    import numpy as np

    if pairs[0].smooth:
        resampled = np.concatenate(
            [_differences(pairs, w, 0 * w) for w in drawn(n, resamples, seed)]
        )
        low, high = (float(q) for q in np.quantile(resampled, (0.025, 0.975)))
        method = f"paired percentile bootstrap over examples, {resamples:,} resamples, seed {seed}"
    else:
        resampled = np.concatenate([_differences(pairs, w, 0 * w) for w in leaving_one_out(n)])
        half = 1.959963984540054 * float(np.sqrt((n - 1) * resampled.var()))
        low, high = difference - half, difference + half
        method = "normal, variance by the paired delete-one jackknife over examples"
    return min(low, difference), max(high, difference), method


def drawn(n: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each example is drawn, (b, n) a block."""
    import numpy as np

    random = np.random.default_rng(seed)
    for block in _blocks(n, resamples):
        size = len(block)
        cells = random.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        counted = np.bincount(cells.ravel(), minlength=size * n)
        yield counted.reshape(size, n).astype(np.float64)


def leaving_one_out(n: int) -> Iterator[Array]:
    """Every example left out once, (b, n) a block."""
    import numpy as np

    for block in _blocks(n, n):
        yield np.not_equal.outer(block, range(n)).astype(np.float64)
