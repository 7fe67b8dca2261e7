"""Where a run is wrong: confusion, labels, calibration, length, and single examples by margin.

Everything follows from the predictions that are stored and, for lengths, from the rows. Expected
calibration error: Guo et al. (ICML 2017), ten bins of equal width; Brier score: Brier (1950),
summed over the options. The probability of an option is the softmax of the options' scores.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from cpm_tune.analysis.texts import fields, texts
from cpm_tune.metrics import Metric, get_metric
from cpm_tune.schema.record import ScoreRecord
from cpm_tune.systems.predictions import score_record
from cpm_tune.task import Choice, Options, Row, Task

_BINS = 10
_BUCKETS = 4
_LABELS = 20  # in a confusion matrix, the most frequent ones


@dataclass(frozen=True)
class Answered:
    """An example: what was predicted, what is right, the options' scores if there are any."""

    id: str
    prediction: Any
    target: Any
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class LabelScores:
    """Of a label: precision, recall, F1 (0 if undefined), and how often it is right."""

    label: str
    precision: float
    recall: float
    f1: float
    n: int


@dataclass(frozen=True)
class Bin:
    """Examples whose highest probability is in a range: mean of it, and the share that is right."""

    low: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """`ece`: the expected calibration error; `brier`: from 0 to 2, less is better."""

    n: int
    ece: float
    brier: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Errors:
    """`confusion[i][j]`: how often label i was predicted as label j, the last being any other or
    none. `buckets`: the ranking metric by length of the texts. `surest`: the numbers of wrong
    examples, those first whose margin of the prediction over the right option is largest; without
    scores in the order of the file."""

    n: int
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    per_label: tuple[LabelScores, ...]
    calibration: Calibration | None
    buckets: Mapping[str, ScoreRecord]
    surest: tuple[int, ...]


def find_errors(
    task: Task, metric_name: str, answers: Sequence[Answered], rows: Sequence[Row] | None = None
) -> Errors:
    """The errors of a split's predictions; `rows` are the split's, in the same order."""
    metric = get_metric(metric_name)
    pairs = [(_name(a.target), _name(a.prediction)) for a in answers]
    labels, matrix = confusion(pairs if _labelled(task, metric) else ())
    each = per_label(pairs if _labelled(task, metric) else ())
    numbers = [right_option(task, answer) for answer in answers]
    scored = [
        (a.scores, n) for a, n in zip(answers, numbers, strict=True) if a.scores and n is not None
    ]
    return Errors(
        n=len(answers),
        labels=labels,
        confusion=matrix,
        per_label=each,
        calibration=calibrate(scored) if scored else None,
        buckets=_buckets(task, metric, answers, rows) if rows is not None else {},
        surest=tuple(_surest(metric, answers, numbers)),
    )


def _labelled(task: Task, metric: Metric) -> bool:
    return isinstance(task.answer, Choice | Options) or metric.prediction == "label"


def _name(value: Any) -> str | None:
    return None if value is None else str(value)


def right_option(task: Task, answer: Answered) -> int | None:
    """The number of the right option among the scores; None if there is no such number."""
    if isinstance(task.answer, Choice):
        names = [str(label) for label in task.answer.labels]
        return names.index(str(answer.target)) if str(answer.target) in names else None
    return int(answer.target) if isinstance(task.answer, Options) else None


def confusion(
    pairs: Iterable[tuple[str | None, str | None]],
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Labels and the matrix of (right, predicted) pairs; a last column counts what is not a label
    or not among the most frequent ones."""
    pairs = list(pairs)
    counts = Counter(str(right) for right, _ in pairs)
    labels = sorted(label for label, _ in counts.most_common(_LABELS))
    cells = Counter((str(r), p if p in labels else None) for r, p in pairs)
    return tuple(labels), tuple(
        tuple(cells[right, predicted] for predicted in (*labels, None)) for right in labels
    )


def per_label(pairs: Iterable[tuple[str | None, str | None]]) -> tuple[LabelScores, ...]:
    """Precision, recall and F1 of each label that is right or predicted at least once."""
    pairs = list(pairs)
    right = Counter(r for r, _ in pairs)
    predicted = Counter(p for _, p in pairs)
    hits = Counter(r for r, p in pairs if r == p)
    names = sorted({*right, *predicted} - {None}, key=str)
    scores = []
    for name in names:
        precision = hits[name] / predicted[name] if predicted[name] else 0.0
        recall = hits[name] / right[name] if right[name] else 0.0
        total = predicted[name] + right[name]
        scores.append(
            LabelScores(str(name), precision, recall, 2 * hits[name] / total, right[name])
        )
    return tuple(scores)


def softmax(scores: Sequence[float]) -> list[float]:
    """Probabilities of options from their scores."""
    most = max(scores)
    powers = [math.exp(score - most) for score in scores]
    total = math.fsum(powers)
    return [power / total for power in powers]


def calibrate(scored: Iterable[tuple[Sequence[float], int]]) -> Calibration:
    """Calibration of (options' scores, number of the right option)."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    brier, n = [], 0
    for scores, right in scored:
        each = softmax(scores)
        best = max(range(len(each)), key=lambda i: (each[i], -i))
        place = min(int(each[best] * _BINS), _BINS - 1)
        bins.setdefault(place, []).append((each[best], best == right))
        brier.append(math.fsum((p - (i == right)) ** 2 for i, p in enumerate(each)))
        n += 1
    made = tuple(
        Bin(
            place / _BINS,
            len(pairs),
            math.fsum(p for p, _ in pairs) / len(pairs),
            sum(hit for _, hit in pairs) / len(pairs),
        )
        for place, pairs in sorted(bins.items())
    )
    ece = math.fsum(b.n * abs(b.confidence - b.accuracy) for b in made) / n
    return Calibration(n, ece, math.fsum(brier) / n, made)


def _buckets(
    task: Task, metric: Metric, answers: Sequence[Answered], rows: Sequence[Row]
) -> dict[str, ScoreRecord]:
    """The metric on quarters of the examples by the length of their texts, as far as lengths
    differ."""
    if metric.kind.likelihood:
        return {}
    names = fields(task)
    sizes = [sum(map(len, texts(names, row))) for row in rows]
    ordered = sorted(sizes)
    bounds = sorted({ordered[(len(ordered) - 1) * k // _BUCKETS] for k in range(1, _BUCKETS)})
    edges = [-1, *bounds, ordered[-1]]
    result = {}
    for low, high in pairwise(edges):
        some = [a for a, size in zip(answers, sizes, strict=True) if low < size <= high]
        if some:
            score = metric.score([a.prediction for a in some], [a.target for a in some])
            result[f"{low + 1} to {high}"] = score_record(metric, score)
    return result


def _surest(
    metric: Metric, answers: Sequence[Answered], numbers: Sequence[int | None]
) -> list[int]:
    if metric.right is None:
        return []
    wrong = [i for i, a in enumerate(answers) if not metric.right(a.prediction, a.target)]
    return sorted(wrong, key=lambda i: (-margin(answers[i], numbers[i]), i))


def margin(answer: Answered, right: int | None) -> float:
    """How much higher the best option's score is than the right one's; 0 without scores."""
    if not answer.scores or right is None:
        return 0.0
    return max(answer.scores) - answer.scores[right]


def lead(answer: Answered, right: int | None) -> float | None:
    """How much higher the right option's score is than the best other one's, below 0 (by the
    margin) if the answer is wrong; None without scores."""
    if right is None or not 0 <= right < len(answer.scores) or len(answer.scores) < 2:
        return None
    others = (*answer.scores[:right], *answer.scores[right + 1 :])
    return answer.scores[right] - max(others)


KINDS = ("both right", "only the first right", "only the second right", "both wrong")


def diff(
    right: Callable[[Any, Any], bool], first: Sequence[Answered], second: Sequence[Answered]
) -> dict[str, list[int]]:
    """The numbers of the examples that both, one or none of two runs has right."""
    kinds: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for number, (a, b) in enumerate(zip(first, second, strict=True)):
        missed = not right(a.prediction, a.target), not right(b.prediction, b.target)
        kinds[KINDS[2 * missed[0] + missed[1]]].append(number)
    return kinds
