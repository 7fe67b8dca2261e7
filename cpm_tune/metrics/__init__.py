"""Metrics by name: thin wrappers over the field's libraries, with signature and interval."""

from __future__ import annotations

from functools import cache

from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.metrics import (
    bleu,
    diversity,
    edits,
    equations,
    labels,
    likelihood,
    m2,
    overlap,
    ranking,
    spans,
)
from cpm_tune.metrics.base import Metric, Score
from cpm_tune.metrics.kinds import KINDS, Kind

__all__ = ["KINDS", "Kind", "Metric", "Score", "get_metric", "metric_names"]

_MODULES = (labels, spans, overlap, bleu, diversity, edits, m2, ranking, equations, likelihood)


@cache
def _metrics() -> dict[str, Metric]:
    return {metric.name: metric for module in _MODULES for metric in module.metrics()}


def metric_names() -> tuple[str, ...]:
    """The names of all metrics, related ones together."""
    return tuple(_metrics())


def get_metric(name: str) -> Metric:
    """Return a metric by name; raise UserError with the nearest name otherwise."""
    metrics = _metrics()
    if name not in metrics:
        raise UserError(f"there is no metric '{name}'.{did_you_mean(name, metrics)}")
    return metrics[name]
