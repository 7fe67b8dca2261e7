"""CUGE's two indices. The report states one rule, the printed figures follow another; each has
its name here, and a score that is missing makes the index blank."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

BASELINE = "mT5-small"
LITE = "cuge-lite"

NORMALISED_MEAN = "normalised-mean"
RATIO_OF_SUMS = "ratio-of-sums"
RULES = {
    NORMALISED_MEAN: (
        "CUGE lite, normalised mean",
        "100 x score / baseline for each dataset, averaged over datasets to kinds, over kinds to "
        "capabilities, over capabilities: the rule that the CUGE report states.",
    ),
    RATIO_OF_SUMS: (
        "CUGE lite, ratio of sums",
        "100 x sum of scores / sum of baseline scores: the rule that the figures printed on the "
        "CUGE board follow.",
    ),
}


class Place(NamedTuple):
    """Where a dataset stands in CUGE's hierarchy."""

    capability: str
    kind: str


def normalised_mean(
    scores: Mapping[str, float], baseline: Mapping[str, float], places: Mapping[str, Place]
) -> float | None:
    """The report's index, over the datasets of `baseline`; None if a score is missing.

    `scores` and `baseline` map dataset to score in the same unit, `places` every dataset to its
    place.
    """
    if missing(scores, baseline):
        return None
    kinds: dict[Place, list[float]] = defaultdict(list)
    for dataset, base in baseline.items():
        kinds[places[dataset]].append(100 * scores[dataset] / base)
    capabilities: dict[str, list[float]] = defaultdict(list)
    for place, values in kinds.items():
        capabilities[place.capability].append(statistics.fmean(values))
    return statistics.fmean(map(statistics.fmean, capabilities.values()))


def ratio_of_sums(scores: Mapping[str, float], baseline: Mapping[str, float]) -> float | None:
    """The board's index, over the datasets of `baseline`; None if a score is missing."""
    if missing(scores, baseline):
        return None
    return 100 * sum(scores[dataset] for dataset in baseline) / sum(baseline.values())


def missing(scores: Mapping[str, float], baseline: Mapping[str, float]) -> list[str]:
    """The datasets of `baseline` without a score; all of them where there is no baseline."""
    return [dataset for dataset in baseline if dataset not in scores]
