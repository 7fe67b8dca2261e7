"""Metrics of a text against its references: exact match, character F1, ROUGE by rouge-score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache, partial
from importlib.metadata import version
from typing import Any

from cpm_tune.common.segmenter import make_segmenter
from cpm_tune.metrics.base import Metric, references
from cpm_tune.metrics.families import OURS, mean, proportion

UNITS = {"char": "characters, whitespace dropped", "jieba": "words of jieba"}


def metrics() -> Iterator[Metric]:
    """Yield exact match, character F1 and the ROUGE variants."""
    definition = f"{OURS}|whitespace at the ends dropped, not normalised otherwise|any reference"
    yield proportion("exact_match", "text", definition, _exact)
    definition = f"{OURS}|bag of characters, whitespace dropped|best reference"
    yield mean("char_f1", "text", definition, _char_f1)

    rouge = f"rouge-score {version('rouge-score')}"
    for unit, tokens in UNITS.items():
        if unit == "jieba":
            tokens += f" {version('jieba')}, whitespace dropped"
        for kind in "12l":
            for part, measure in (("f", "F1"), ("p", "precision"), ("r", "recall")):
                definition = f"{rouge}|rouge{kind.upper()}|{measure}|{tokens}|reference of best F1"
                if kind == "2":
                    definition += "|fewer than 2 tokens: 0"
                one = partial(_rouge, f"rouge{kind.upper()}", unit, part)
                yield mean(f"rouge_{kind}_{unit}_{part}", "text", definition, one)
    versions = []
    for strip, spaces in ((True, "spaces count"), (False, "all spaces count")):
        definition = (
            f"{rouge}|rougeL|F, beta 1.2, as CPM-2|characters, {spaces}|"
            "best precision and best recall over references"
        )
        versions.append(mean("rouge_l_cpm2", "text", definition, partial(_rouge_cpm2, strip)))
    yield replace(versions[1], earlier=(versions[0],))


def _exact(prediction: str | None, target: str | list[str]) -> bool:
    predicted = None if prediction is None else prediction.strip()
    return any(predicted == reference.strip() for reference in references(target))


def _char_f1(prediction: str | None, target: str | list[str]) -> float:
    predicted = Counter("".join((prediction or "").split()))
    return max(_bag_f1(predicted, Counter("".join(r.split()))) for r in references(target))


def _bag_f1(predicted: Counter[str], gold: Counter[str]) -> float:
    size = predicted.total() + gold.total()
    return 2 * (predicted & gold).total() / size if size else 1.0


class _Tokenizer:
    """The tokenizer object that rouge-score asks for; its own drops Chinese characters."""

    def __init__(self, unit: str) -> None:
        self.unit = unit

    def tokenize(self, text: str) -> list[str]:
        if self.unit == "jieba":
            return [word for word in _jieba().lcut(text) if word.strip()]
        return list(text) if self.unit == "cpm2" else list("".join(text.split()))


@cache
def _jieba() -> Any:

    return make_segmenter()


@cache
def _scorer(kind: str, unit: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind], tokenizer=_Tokenizer(unit))


# Precision, recall and F1 are three metrics of one computation, which is slow.
@lru_cache(maxsize=2**15)
def _rouge_score(kind: str, unit: str, golds: tuple[str, ...], predicted: str) -> dict[str, float]:
    score = _scorer(kind, unit).score_multi(golds, predicted)[kind]
    return {"p": float(score.precision), "r": float(score.recall), "f": float(score.fmeasure)}


def _rouge(kind: str, unit: str, part: str, prediction: str | None, target: Any) -> float:
    return _rouge_score(kind, unit, tuple(references(target)), prediction or "")[part]


def _rouge_cpm2(strip: bool, prediction: str | None, target: str | list[str]) -> float:
    texts = prediction or "", *references(target)
    predicted, *golds = (text.strip() if strip else text for text in texts)
    each = [_rouge_score("rougeL", "cpm2", (gold,), predicted) for gold in golds]
    precision, recall = max(s["p"] for s in each), max(s["r"] for s in each)
    if not precision or not recall:
        return 0.0
    return (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
