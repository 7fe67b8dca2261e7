"""Metrics of labels: accuracy, binary F1, and relation F1 that leaves "no relation" out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

from cpm_tune.metrics.base import Metric, Score, pairs
from cpm_tune.metrics.families import OURS, Counts, each, micro, rights
from cpm_tune.metrics.intervals import WILSON, wilson

NO_RELATION = ("0", "NA", "unknown")  # FinRE: label 0, described as "unknown"


def metrics() -> Iterator[Metric]:
    """Yield the metrics of labels."""
    signature = f"accuracy|scikit-learn {version('scikit-learn')}|{WILSON}"
    yield Metric("accuracy", signature, True, "0..1", "label", _accuracy, rights(_same), _same)
    yield from micro("", "label", f"{OURS}|binary, positive label 1", each(_binary), right=_same)
    definition = f"{OURS}|all relations but {' / '.join(NO_RELATION)}"
    yield from micro("relation_", "label", definition, each(_relation), right=_same)


def _key(label: Any) -> str | None:
    """A label as text, so that 1, True and "1" are one label; None stays None."""
    if label is None:
        return None
    return str(int(label)) if isinstance(label, bool) else str(label).strip()


def _accuracy(predictions: Sequence[Any], targets: Sequence[Any]) -> Score:
    from sklearn.metrics import accuracy_score

    both = [(_key(p), _key(t)) for p, t in pairs(predictions, targets)]
    number = {target: i for i, target in enumerate(dict.fromkeys(target for _, target in both))}
    numbers = [-1 if label is None else number.get(label, -1) for label, _ in both]
    right = accuracy_score([number[target] for _, target in both], numbers, normalize=False)
    return wilson(int(right), len(both))


def _same(prediction: Any, target: Any) -> bool:
    return prediction is not None and _key(prediction) == _key(target)


def _binary(prediction: Any, target: Any) -> Counts:
    predicted, positive = _key(prediction) == "1", _key(target) == "1"
    return predicted and positive, predicted, positive


def _relation(prediction: Any, target: Any) -> Counts:
    relation, gold = _key(prediction), _key(target)
    predicted = relation is not None and relation not in NO_RELATION
    return predicted and relation == gold, predicted, gold not in NO_RELATION
