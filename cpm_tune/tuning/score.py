"""Scores a split: predictions, metrics, and the constant-answer baseline."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cpm_tune.common.folders import predictions_file
from cpm_tune.common.progress import tracked
from cpm_tune.common.writing import write_atomically
from cpm_tune.data.encoded import keep_encoded
from cpm_tune.data.store import Split
from cpm_tune.errors import NotFiniteError
from cpm_tune.metrics import Score, get_metric
from cpm_tune.schema.record import ControlRecord, ScoreRecord
from cpm_tune.systems.predictions import score_record
from cpm_tune.systems.submission import write_submission
from cpm_tune.task import Choice, Generate, Options, Rank, Row, Task
from cpm_tune.task.answers import gold, parsed
from cpm_tune.tuning.predict import Prediction, Predictor

T = TypeVar("T")

_ENOUGH = 10  # predictions, to say that they are all the same
_COUNTED = 200_000  # rows looked at for the most frequent answer


@dataclass(frozen=True)
class Scored:
    """What scoring a split leaves; `files` are the predictions and the submission, `answers` what
    a submission says."""

    answers: tuple[Any, ...]
    scores: dict[str, ScoreRecord]
    files: tuple[Path, ...]
    n_truncated: int
    n_unparsed: int
    n_shots_dropped: int
    warnings: tuple[str, ...]


def score_split(
    predictor: Predictor,
    data: Split,
    folder: Path,
    predictions: Sequence[Prediction] | None = None,
) -> Scored:
    """Predict a split (unless its predictions are given), write predictions.SPLIT.jsonl, and score
    it if it has answers. Every process predicts its share; the main one writes and scores."""
    task, split = predictor.task, data.file.split
    if predictions is None:
        predictions = _predict_all(predictor, data)
    scores = {}
    if data.labelled:
        for name in (*task.metrics, *predictor.encoder.template.metrics):
            metric, score = get_metric(name), _score(predictor, data, name, predictions)
            if score is not None:
                scores[name] = score_record(metric, score)
    keep_encoded(predictor.encoder)
    if not predictor.engine.main:
        return Scored((), {}, (), 0, 0, 0, ())
    file = folder / predictions_file(split)
    lines = (json.dumps(p.to_json(), ensure_ascii=False) + "\n" for p in predictions)
    write_atomically(file, "".join(lines))
    files, warnings = [file], list(_warnings(task, predictions, split, predictor.trained))
    answers = tuple(_answer(task, p) for p in predictions)
    if split == "test" and not data.labelled and task.submission is not None:
        submission = folder / task.submission.file
        warnings += write_submission(task, data, answers, submission)
        files += [folder / form.file for form in task.submission.forms]
    return Scored(
        answers,
        scores,
        tuple(files),
        sum(p.truncated for p in predictions),
        sum(p.unparsed for p in predictions),
        sum(p.dropped for p in predictions),
        tuple(warnings),
    )


def _answer(task: Task, predicted: Prediction) -> Any:
    """What a submission says of a row: the prediction, or where a rule chose no option (which
    organisers do not accept) the one with the highest score."""
    if not predicted.unparsed or not predicted.scores:
        return predicted.prediction
    best = max(range(len(predicted.scores)), key=lambda k: (predicted.scores[k], -k))
    return task.answer.labels[best] if isinstance(task.answer, Choice) else best


class Selection:
    """Scores (the first `n_rows` rows of) dev during training by the ranking metric, and keeps the
    predictions of the best evaluation, so that dev need not be predicted again."""

    def __init__(self, predictor: Predictor, dev: Split, n_rows: int | None) -> None:
        self.metric = get_metric(predictor.task.metrics[0])
        self._predictor, self._n_rows = predictor, len(dev)
        self._dev = Split(dev.file, dev.rows.first(n_rows), dev.n_skipped, dev.labelled)
        self._last: list[Prediction] = []
        self.best: list[Prediction] = []

    def score(self) -> float:
        """The ranking metric now, the same in every process."""
        self._last = _predict_all(self._predictor, self._dev)
        score = _score(self._predictor, self._dev, self.metric.name, self._last)
        return self._predictor.engine.broadcast(score.value if score else 0.0)

    def keep_last(self) -> None:
        """Keep the last evaluation's predictions: it was the best one so far."""
        self.best = self._last

    @property
    def predictions(self) -> list[Prediction] | None:
        """The best evaluation's predictions, if they are of all rows of dev."""
        return self.best if len(self._dev) == self._n_rows else None


def _predict_all(predictor: Predictor, data: Split) -> list[Prediction]:
    """All predictions in the main process, none in the others, which make their share."""
    engine = predictor.engine
    rows = data.rows.share(engine.rank, engine.world_size)
    what = f"scoring {data.file.split}" if data.labelled else f"predicting {data.file.split}"
    return engine.gather(_share(predictor, predictor.predict(rows), what, len(rows)))


def _share(predictor: Predictor, values: Iterable[T], what: str, n: int) -> list[T]:
    """This process's values. If scores are not finite in one process, all raise its error."""
    engine, share, fault = predictor.engine, list[T](), ""
    with engine.join(predictor.model):
        try:
            share = list(tracked(values, what, n))
        except NotFiniteError as error:
            if engine.world_size == 1:
                raise
            fault = str(error)
    if any(engine.reduce_sums([float(bool(fault))])):
        faults = filter(None, engine.gather([fault]))
        raise NotFiniteError(engine.broadcast(next(faults, "")))
    return share


def _score(
    predictor: Predictor, data: Split, name: str, predictions: Sequence[Prediction]
) -> Score | None:
    """The metric, in the main process."""
    metric, engine = get_metric(name), predictor.engine
    if metric.kind.likelihood:  # of the gold text, not of what the backbone generates
        rows = data.rows.share(engine.rank, engine.world_size)
        cosines = metric.prediction == "cosine"
        values: Iterable[Any] = (
            predictor.answer_cosines(rows) if cosines else predictor.answer_losses(rows)
        )
        each = engine.gather(_share(predictor, values, f"scoring {data.file.split}", len(rows)))
        return metric.score(each, [None] * len(each)) if engine.main else None
    if not engine.main:
        return None
    return metric.score([p.prediction for p in predictions], [p.gold for p in predictions])


def _warnings(
    task: Task, predictions: Sequence[Prediction], split: str, trained: bool
) -> Iterator[str]:
    answers = {json.dumps(p.prediction, ensure_ascii=False) for p in predictions}
    wanted = {json.dumps(p.gold, ensure_ascii=False) for p in predictions}
    same = len(answers) == 1 and answers != {"null"}
    enough = len(predictions) >= _ENOUGH and len(wanted) > 1
    if same and enough and not isinstance(task.answer, Rank):
        learnt = ": nothing was learnt" if trained else ""
        yield f"every prediction on {split} is {answers.pop()}{learnt}"
    unparsed = sum(p.unparsed for p in predictions)
    if unparsed and not isinstance(task.answer, Generate):
        yield (
            f"{unparsed:,} of {len(predictions):,} rows on {split} have no prediction: another "
            "token is more probable than each option's"
        )
    elif unparsed * 2 > len(predictions):
        yield f"{unparsed:,} of {len(predictions):,} texts on {split} could not be read"


def constant_control(task: Task, splits: Mapping[str, Split], n_best: int) -> ControlRecord:
    """The ranking metric of a constant-answer baseline on test.

    The most frequent label, option or text (`n_best` of them) of train, or of dev without a train
    split; for documents the order in the file.
    """
    test, source = splits["test"], "train" if "train" in splits else "dev"
    metric = get_metric(task.metrics[0])
    constant: list[Any]
    if isinstance(task.answer, Rank):
        note = "documents as they stand in the file"
        constant = [[-i for i in range(len(row["target"]))] for row in test.rows]
    else:
        counts = Counter(splits[source].rows.first(_COUNTED).targets())
        ranked = sorted(counts, key=lambda target: (-counts[target], target))
        constant = [_constant(task, ranked, n_best, row) for row in test.rows]
        shown = ranked[0]
        if isinstance(task.answer, Choice):
            shown = task.answer.labels[shown]
        elif isinstance(task.answer, Options):
            shown = f"option {shown + 1}"
        example = repr(shown) if len(str(shown)) <= 30 else repr(str(shown)[:30] + "…")
        note = f"always {example}, the most frequent in {source}"
    score = metric.score(constant, [gold(task, row) for row in test.rows])
    return ControlRecord(value=score.value, low=score.low, high=score.high, note=note)


def _constant(task: Task, ranked: Sequence[Any], n_best: int, row: Row) -> Any:
    answer = task.answer
    if isinstance(answer, Choice):
        return answer.labels[ranked[0]]
    if isinstance(answer, Generate):
        texts = [parsed(task, text, row) for text in ranked[:n_best]]
        return texts if n_best > 1 else texts[0]
    return min(ranked[0], len(row[answer.options]) - 1) if isinstance(answer, Options) else None
