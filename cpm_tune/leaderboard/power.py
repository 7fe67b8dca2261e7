"""How many examples it takes to see a difference between two systems.

From the standard error of a difference that was measured, by the usual approximation for paired
data: it falls with the square root of the number of examples (Card et al., EMNLP 2020, on power in
this field).
"""

from __future__ import annotations

import math
from statistics import NormalDist

from cpm_tune.leaderboard.statistics import ComparisonResult

POWER, LEVEL = 0.8, 0.05
_SUM = NormalDist().inv_cdf(1 - LEVEL / 2) + NormalDist().inv_cdf(POWER)


def standard_error(result: ComparisonResult) -> float | None:
    """The standard error of the difference, from its 95% interval; None without one."""
    if result.low is None or result.high is None or result.high == result.low:
        return None
    return (result.high - result.low) / (2 * NormalDist().inv_cdf(0.975))


def detectable(error: float) -> float:
    """The least difference that is significant with a probability of 80%."""
    return _SUM * error


def needed(error: float, n: int, difference: float) -> int:
    """The number of examples that show a difference (not 0) with a probability of 80%, if n
    examples measure one with this standard error."""
    return math.ceil(n * (_SUM * error / difference) ** 2)
