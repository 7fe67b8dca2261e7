"""Shortcut controls: what can be answered on test without reading the texts as a model does.

Each is learnt on the run's train split, and scored on its test split by the run's ranking metric. A
score that is not above the best of them shows no more than that shortcut. Sources: partial inputs,
Gururangan et al. and Poliak et al. (2018); lexical overlap, McCoy et al. (2019); length and unigram
baselines, Naik et al. (2018).

They are computed on at most MOST rows of either split, chosen by a fixed seed, and stored in the
user's cache under the data's identity.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

from cpm_tune.analysis.counts import Counts
from cpm_tune.analysis.texts import fields, option_column, sample, texts, units
from cpm_tune.common.paths import cache_dir
from cpm_tune.common.writing import write_atomically
from cpm_tune.data.store import Split
from cpm_tune.metrics import get_metric
from cpm_tune.schema.record import ControlRecord
from cpm_tune.task import Choice, Generate, Rank, Row, Task
from cpm_tune.task.answers import gold

VERSION = 2
MOST = 10_000  # rows of a split
_LONGEST = 200  # characters that are looked at, of a text
_LEARNT = 1_000_000  # characters of train
_COMPARED = 3  # texts of a row that are compared with one another
_SIMILAR = 500  # rows compared with train at a time
_BAG, _SHOWN = 20_000, 50_000  # terms of the regression, and of the nearest row

Features = list[list[float]]


@dataclass(frozen=True)
class _Rows:
    """Rows as shortcuts see them: units of each text, of each option, and the right answers.

    `answers` are numbers of labels or options, or of a query's best document (None: no single one).
    """

    texts: list[list[list[str]]]
    options: list[list[list[str]]]
    answers: list[int | None]


def shortcut_controls(task: Task, train: Split, test: Split) -> dict[str, ControlRecord]:
    """The shortcuts' scores on test, by name; empty for tasks whose answers are texts.

    length: of the texts, or of an option. bag: the characters and words that occur. overlap: what
    the texts, or an option and the texts, have in common. option-alone: the characters and words of
    an option without its question. nearest: the answer of the most similar row of train.
    """
    if isinstance(task.answer, Generate) or not test.labelled:
        return {}
    file = _file(task, train, test)
    with contextlib.suppress(OSError, ValueError):  # absent or damaged
        stored = json.loads(file.read_text(encoding="utf-8"))
        return {name: ControlRecord.model_validate(value) for name, value in stored.items()}
    controls = _computed(task, train, test)
    with contextlib.suppress(OSError):  # a full disk costs only time
        values = {name: control.model_dump() for name, control in controls.items()}
        write_atomically(file, json.dumps(values, ensure_ascii=False))
    return controls


def _file(task: Task, train: Split, test: Split) -> Any:
    metric = get_metric(task.metrics[0])
    origins = [vars(split.rows.origin) if split.rows.origin else None for split in (train, test)]
    shown = [task.name, task.shown, metric.signature]
    key = json.dumps([VERSION, *shown, *origins])
    return cache_dir("shortcuts") / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _computed(task: Task, train: Split, test: Split) -> dict[str, ControlRecord]:
    read = [split.rows.at(sample(split.rows, MOST)) for split in (train, test)]
    known, asked = (_rows(task, rows) for rows in read)
    known = _shortened(known)
    metric = get_metric(task.metrics[0])
    golds = [gold(task, row) for row in read[1]]
    of = ""
    if len(train) > len(known.answers) or len(test) > MOST:
        of = f"; {len(known.answers):,} rows of train, {len(asked.answers):,} of test"
    controls = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a fit did not converge costs little here
        for name, note, answers in _shortcuts(task, known, asked):
            score = metric.score([_prediction(task, answer) for answer in answers], golds)
            controls[name] = ControlRecord(
                value=score.value, low=score.low, high=score.high, note=note + of
            )
    return controls


def _shortcuts(task: Task, known: _Rows, asked: _Rows) -> Iterator[tuple[str, str, list[Any]]]:
    """Name, note and answers of each shortcut: numbers of labels, or a score per option."""
    n_texts = len(known.texts[0])
    if isinstance(task.answer, Choice):
        if len({*known.answers}) < 2:  # nothing to learn but the majority
            return
        yield "length", "a decision tree on the texts' lengths", _by_numbers(known, asked, _lengths)
        counts = Counts(known.texts, asked.texts)
        yield (
            "bag",
            "logistic regression on characters, words and their pairs",
            _by_bag(counts, known.answers),
        )
        if n_texts > 1:
            note = "a decision tree on how much the texts have in common"
            yield "overlap", note, _by_numbers(known, asked, _overlaps)
        yield (
            "nearest",
            "the label of the most similar row of train",
            [known.answers[at] for at in _nearest(counts)],
        )
        return
    note = "a decision tree on each option's length among the row's"
    yield "length", note, _options_by_numbers(known, asked, _option_lengths)
    note = "logistic regression on each option's characters, words and pairs, without the question"
    yield "option-alone", note, _options_by_bag(known, asked)
    if n_texts:
        note = "a decision tree on how much each option has in common with the other texts"
        yield "overlap", note, _options_by_numbers(known, asked, _option_overlaps)
        note = "the option most like the right one of the most similar row of train"
        yield "nearest", note, _options_by_nearest(known, asked)


def _prediction(task: Task, answer: Any) -> Any:
    if isinstance(task.answer, Choice):
        return task.answer.labels[answer]
    return list(answer) if isinstance(task.answer, Rank) else _first_best(answer)


def _first_best(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=lambda i: (scores[i], -i))


def _rows(task: Task, rows: Sequence[Row]) -> _Rows:
    names, listed = fields(task), option_column(task)
    cut = [[units(text[:_LONGEST]) for text in texts(names, row)] for row in rows]
    options = [[units(o[:_LONGEST]) for o in row[listed]] if listed else [] for row in rows]
    return _Rows(cut, options, [_answer(task, row["target"]) for row in rows])


def _shortened(rows: _Rows) -> _Rows:
    """The first rows, of at most _LEARNT characters."""
    n, characters = 0, 0
    while n < len(rows.answers) and characters < _LEARNT:
        characters += sum(len(part) for part in (*rows.texts[n], *rows.options[n]))
        n += 1
    return _Rows(rows.texts[:n], rows.options[:n], rows.answers[:n])


def _answer(task: Task, target: Any) -> int | None:
    if not isinstance(task.answer, Rank):
        return int(target)
    best = max(target)
    return target.index(best) if target.count(best) == 1 else None


# --- labels ---------------------------------------------------------------------------------------


def _lengths(parts: list[list[str]], options: list[list[str]]) -> Features:
    """Lengths of the texts, and the first two's difference and ratio: one list, for the row."""
    n = [float(sum(map(len, part))) for part in parts]
    pairs = [(a, b) for a, b in combinations(n[:_COMPARED], 2)]
    return [
        [*n, *(abs(a - b) for a, b in pairs), *(min(a, b) / (max(a, b) or 1) for a, b in pairs)]
    ]


def _overlaps(parts: list[list[str]], options: list[list[str]]) -> Features:
    """What each two texts have in common: one list, for the row."""
    sets = [_sets(part) for part in parts[:_COMPARED]]
    return [[x for a, b in combinations(sets, 2) for x in _common(a, b)]]


Sets = tuple[set[str], set[tuple[str, str]]]


def _sets(part: list[str]) -> Sets:
    """A text's units, and its pairs of neighbouring units."""
    return {*part}, {*pairwise(part)}


def _common(a: Sets, b: Sets) -> list[float]:
    """Jaccard indices of units and of pairs, and the smaller and larger share of a text's units
    that the other has."""
    both = len(a[0] & b[0])
    shares = sorted((both / (len(a[0]) or 1), both / (len(b[0]) or 1)))
    return [both / (len(a[0] | b[0]) or 1), len(a[1] & b[1]) / (len(a[1] | b[1]) or 1), *shares]


Measure = Callable[[list[list[str]], list[list[str]]], Features]


def _by_numbers(known: _Rows, asked: _Rows, measure: Measure) -> list[Any]:
    import numpy as np

    def measured(rows: _Rows) -> Any:
        pairs = zip(rows.texts, rows.options, strict=True)
        return np.array([measure(*pair)[0] for pair in pairs], dtype=np.float32)

    model = _tree(len(known.answers)).fit(measured(known), known.answers)
    return list(map(int, model.predict(measured(asked))))


def _tree(n: int) -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=4, min_samples_leaf=max(5, n // 200), random_state=0)


def _by_bag(counts: Counts, answers: Sequence[Any]) -> list[Any]:
    model, matrix = _fitted_bag(counts, answers)
    return list(map(int, model.predict(matrix)))


def _fitted_bag(counts: Counts, answers: Sequence[Any]) -> tuple[Any, Any]:
    """A logistic regression on the terms that occur in the known rows, and the rows asked as its
    input."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import normalize

    frequent = counts.rows_with_each >= (2 if counts.known.shape[0] > 50 else 1)
    chosen = _most(counts.rows_with_each, frequent, _BAG)
    usual = counts.known.sum() / counts.known.shape[0]

    def shares(matrix: Any) -> Any:
        """Each text's terms add up to the same: its length is a shortcut of its own."""
        occurs = matrix[:, chosen].astype(np.float64)
        occurs.data[:] = 1
        return normalize(occurs, "l1") * usual

    model = LogisticRegression(max_iter=100, tol=1e-2).fit(shares(counts.known), answers)
    return model, shares(counts.asked)


def _most(values: Any, allowed: Any, most: int) -> Any:
    """The places, in order, of the allowed values that are largest; the first of equal ones. Of
    none allowed the first place."""
    import numpy as np

    places = np.flatnonzero(allowed)
    if not len(places):
        return np.arange(1)
    order = np.argsort(-values[places], kind="stable")[:most]
    return np.sort(places[order])


def _nearest(counts: Counts) -> list[int]:
    """For each row asked the number of the most similar known one, by tf-idf of units and pairs;
    the first of several."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfTransformer

    # Frequent terms tell little and cost most.
    often = max(200, counts.known.shape[0] // 100)
    occurring = np.asarray(counts.known.sum(axis=0)).ravel()
    chosen = _most(occurring, counts.rows_with_each <= often, _SHOWN)
    weighted = TfidfTransformer().fit(counts.known[:, chosen])
    matrix = weighted.transform(counts.known[:, chosen]).T.tocsr()
    wanted = weighted.transform(counts.asked[:, chosen])
    places: list[int] = []
    for start in range(0, wanted.shape[0], _SIMILAR):
        similar = (wanted[start : start + _SIMILAR] @ matrix).toarray()
        places += similar.argmax(axis=1).tolist()
    return places


# --- options and documents ------------------------------------------------------------------------


def _option_lengths(parts: list[list[str]], options: list[list[str]]) -> Features:
    """Per option: its length, that less the mean, and how many are shorter and longer."""
    n = [float(sum(map(len, option))) for option in options]
    middle = sum(n) / len(n)
    return [[x, x - middle, sum(y < x for y in n), sum(y > x for y in n)] for x in n]


def _option_overlaps(parts: list[list[str]], options: list[list[str]]) -> Features:
    """Per option: what it and each other text have in common, also less the row's largest."""
    sets, each = [_sets(part) for part in parts[:_COMPARED]], map(_sets, options)
    rows = [[x for part in sets for x in _common(option, part)] for option in each]
    most = [max(column) for column in zip(*rows, strict=True)]
    return [[*row, *(x - y for x, y in zip(row, most, strict=True))] for row in rows]


def _options_by_numbers(known: _Rows, asked: _Rows, measure: Measure) -> list[Any]:
    import numpy as np

    features, right = [], []
    for parts, options, answer in zip(known.texts, known.options, known.answers, strict=True):
        if answer is not None:
            features += measure(parts, options)
            right += [i == answer for i in range(len(options))]
    if len({*right}) < 2:
        return [[0.0] * len(options) for options in asked.options]
    model = _tree(len(right)).fit(np.array(features, dtype=np.float32), right)
    each = [measure(*pair) for pair in zip(asked.texts, asked.options, strict=True)]
    flat = np.array([row for rows in each for row in rows], dtype=np.float32)
    return _by_row(model.predict_proba(flat)[:, 1], asked.options)


def _options_by_bag(known: _Rows, asked: _Rows) -> list[Any]:
    terms, right = list[list[list[str]]](), list[bool]()
    for options, answer in zip(known.options, known.answers, strict=True):
        if answer is not None:
            terms += [[option] for option in options]
            right += [i == answer for i in range(len(options))]
    if len({*right}) < 2:
        return [[0.0] * len(options) for options in asked.options]
    wanted = [[option] for options in asked.options for option in options]
    model, matrix = _fitted_bag(Counts(terms, wanted), right)
    return _by_row(model.decision_function(matrix), asked.options)


def _by_row(values: Any, options: Sequence[Sequence[Any]]) -> list[list[float]]:
    stream = iter(values.tolist())
    return [[next(stream) for _ in row] for row in options]


def _options_by_nearest(known: _Rows, asked: _Rows) -> list[Any]:
    scores = []
    places = _nearest(Counts(known.texts, asked.texts))
    for at, options in zip(places, asked.options, strict=True):
        answer = known.answers[at]
        right = _sets(known.options[at][answer] if answer is not None else [])
        scores.append([_common(_sets(option), right)[0] for option in options])
    return scores
