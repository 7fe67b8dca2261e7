"""A metric on weighted examples, as resampling and swapping examples need it.

A weighting says how often each example counts. A metric whose parts are `Sums` depends on the
examples through sums of their statistics alone; `Median` and `Different` are the exceptions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# Right or wrong per example, a mean of the examples' scores, or a value of the whole corpus only.
Form = Literal["right", "mean", "corpus"]


class Parts(Protocol):
    """A metric's examples. `smooth` is False if drawing an example twice lowers the value by
    itself, so that a bootstrap is not valid."""

    form: Form
    smooth: bool

    def __len__(self) -> int:
        """The number of examples."""

    def values(self, weights: Array) -> Array:
        """The metric (b,) under each of the weightings (b, n), whole numbers from 0."""


class Sums:
    """Statistics (n, k) of the examples, finite, and `reduce` from their sums (b, k) to values
    (b,). Of the forms right and mean, the first statistic is the example's score."""

    smooth = True

    def __init__(
        self,
        statistics: Sequence[Sequence[float]] | Array,
        reduce: Callable[[Array], Array],
        form: Form = "corpus",
    ) -> None:
        import numpy as np

        self.statistics = np.asarray(statistics, dtype=np.float64)
        self.reduce = reduce
        self.form: Form = form

    def __len__(self) -> int:
        return len(self.statistics)

    def values(self, weights: Array) -> Array:
        return self.reduce(weights @ self.statistics)


def share(sums: Array) -> Array:
    """The mean of scores, from sums of (score, 1)."""
    result: Array = sums[:, 0] / sums[:, 1]
    return result


class Median:
    """The median of the examples' values (n,)."""

    smooth = True
    form: Form = "corpus"

    def __init__(self, each: Sequence[float]) -> None:
        import numpy as np

        self._each = np.asarray(each, dtype=np.float64)
        self._order = np.argsort(self._each, kind="stable")

    def __len__(self) -> int:
        return len(self._each)

    def values(self, weights: Array) -> Array:
        import numpy as np

        ordered = self._each[self._order]
        below = np.cumsum(weights[:, self._order], axis=1)
        half = below[:, -1:] / 2
        low = ordered[(below < half).sum(axis=1)]
        high = ordered[(below <= half).sum(axis=1).clip(max=len(ordered) - 1)]
        result: Array = (low + high) / 2
        return result


class Different:
    """The number of different things in the examples, over the number of all things in them."""

    smooth = False
    form: Form = "corpus"

    def __init__(self, each: Sequence[Mapping[str, int]]) -> None:
        import numpy as np
        from scipy.sparse import csr_array

        number = {thing: i for i, thing in enumerate(Counter(t for things in each for t in things))}
        columns = [number[thing] for things in each for thing in things]
        starts = np.cumsum([0, *map(len, each)])
        ones = np.ones(len(columns))
        self._holds: Any = csr_array((ones, columns, starts), shape=(len(each), len(number)))
        self._totals = np.array([float(sum(things.values())) for things in each])

    def __len__(self) -> int:
        return len(self._totals)

    def values(self, weights: Array) -> Array:
        import numpy as np

        there = [(row @ self._holds > 0).sum() for row in weights]
        result: Array = np.array(there) / np.maximum(1, weights @ self._totals)
        return result
