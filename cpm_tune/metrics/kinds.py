"""What predictions are: the table of kinds, one entry each, that every other room reads.

A metric names the kind of its predictions (`Metric.prediction`). Whether a task may use the metric,
how a submitted answer becomes a prediction, and what is checked of predictions read from a file all
follow from the kind's entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

# What an answer of a task is: one of its labels, the number of one of the row's options, a score
# for each of the row's documents, a generated text, what the task's parser reads in it, or several
# generated texts, best first.
AnswerForm = Literal["label", "option", "scores", "text", "parsed", "texts"]


@dataclass(frozen=True)
class Kind:
    """One kind of prediction.

    `prediction` and `target` say what one of each is. `answers` are the answers of tasks that give
    such predictions. `expected(prediction, gold)` checks a prediction that was read from a JSON
    file: it returns "" or what was expected instead. `from_gold(gold)` lists the predictions that a
    gold answer stands for, the first one first; it is None if a gold answer is not of a
    prediction's form (a text's references), and a prediction is read from the target text instead.
    `likelihood` marks what comes from the model's probabilities and not from its predictions.
    """

    prediction: str
    target: str
    answers: Set[AnswerForm]
    expected: Callable[[Any, Any], str]
    from_gold: Callable[[Any], Sequence[Any]] | None = None
    likelihood: bool = False


def _text(prediction: Any, gold: Any) -> str:
    return "" if isinstance(prediction, str) else "a text"


def _texts(prediction: Any, gold: Any) -> str:
    fits = isinstance(prediction, list) and all(isinstance(text, str) for text in prediction)
    return "" if fits else "a list of texts"


def _words(prediction: Any, gold: Any) -> str:
    carried = isinstance(prediction, list) and prediction and type(prediction[0]) is int
    fits = not _texts(prediction[1:] if carried else prediction, gold)
    return "" if fits and not (carried and prediction[0] < 0) else "a list of words"


def _spans(prediction: Any, gold: Any) -> str:
    fits = isinstance(prediction, list) and all(
        isinstance(span, list) and [type(part) for part in span] == [int, int, str]
        for span in prediction
    )
    return "" if fits else "a list of [start, end, text]"


def _scores(prediction: Any, gold: Any) -> str:
    n = len(gold or ())
    fits = isinstance(prediction, list) and len(prediction) == n and all(map(_number, prediction))
    return "" if fits else f"{n} numbers, one per document"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _nothing(prediction: Any, gold: Any) -> str:
    return "nothing: likelihoods are not read from files"


def _one(gold: Any) -> Sequence[Any]:
    return [gold]


KINDS: Mapping[str, Kind] = {
    "label": Kind(
        prediction="a label, whole number or text",
        target="a label",
        answers={"label", "option", "parsed"},
        expected=_text,
        from_gold=_one,
    ),
    "text": Kind(
        prediction="a text",
        target="a text or a list of reference texts",
        answers={"text"},
        expected=_text,
    ),
    "spans": Kind(
        prediction="a list of [start, end, type]",
        target="such a list",
        answers={"parsed"},
        expected=_spans,
        from_gold=_one,
    ),
    "words": Kind(
        prediction="a list of words, after the number of characters that belong to a word of the "
        "sentence before, if any do",
        target="a list of words",
        answers={"parsed"},
        expected=_words,
        from_gold=_one,
    ),
    "edits": Kind(
        prediction="a list of [start, end, replacement]",
        target="one such list per annotator",
        answers={"parsed"},
        expected=_spans,
        from_gold=list,
    ),
    "correction": Kind(
        prediction="the corrected text",
        target='{"source": the text, "edits": [start, end, replacement]s per annotator}',
        answers={"text", "parsed"},
        expected=_text,
    ),
    "ranking": Kind(
        prediction="a list of scores, one per document",
        target="the documents' grades in the same order",
        answers={"scores"},
        expected=_scores,
        from_gold=_one,
    ),
    "ranks": Kind(
        prediction="a list of texts, best first",
        target="the right text or a list of right ones",
        answers={"texts"},
        expected=_texts,
    ),
    "equation": Kind(
        prediction="an equation's text",
        target='the answer, or {"answer": the answer}',
        answers={"text"},
        expected=_text,
    ),
    "nll": Kind(
        prediction="(summed negative log-likelihood in nats, number of tokens)",
        target="not read",
        answers={"text", "texts"},
        expected=_nothing,
        likelihood=True,
    ),
    "cosine": Kind(
        prediction="the cosine of two sums of embeddings",
        target="not read",
        answers={"text", "texts"},
        expected=_nothing,
        likelihood=True,
    ),
}
