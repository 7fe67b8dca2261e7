"""Scores a split: predictions, metrics, the constant control, the organisers' submission file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from cpm_tune.common.folders import predictions_file
from cpm_tune.common.sizes import counted
from cpm_tune.common.writing import write_atomically
from cpm_tune.data.encoded import keep_encoded
from cpm_tune.data.files import records_with_rows
from cpm_tune.data.store import Split
from cpm_tune.errors import UserError
from cpm_tune.metrics import Score, get_metric
from cpm_tune.planning.inputs import Inputs
from cpm_tune.planning.plan import Plan
from cpm_tune.schema.record import ControlRecord, ScoreRecord
from cpm_tune.task import BadRow, Choice, Generate, Options, Rank, Row, Task
from cpm_tune.task.answers import gold, parsed
from cpm_tune.tuning.predict import Prediction, answer_losses, predict

_COUNTED = 200_000  # rows looked at for the most frequent answer


@dataclass(frozen=True)
class Scored:
    """What is left of scoring a split; `files` are the predictions and the submission."""

    predictions: tuple[Any, ...]
    scores: dict[str, ScoreRecord]
    files: tuple[Path, ...]
    n_truncated: int
    n_unparsed: int
    warnings: tuple[str, ...]


def score_split(
    plan: Plan,
    model: Any,
    inputs: Inputs,
    split: str,
    folder: Path,
    found: Sequence[Prediction] | None = None,
) -> Scored:
    """Predict a split (unless its predictions are given), write predictions.SPLIT.jsonl, and score
    it if it has answers. Every process predicts its share; the main one writes and scores."""
    data = inputs.splits[split]
    found = _predictions(plan, model, inputs, data) if found is None else found
    scores = {}
    if data.labelled:
        for name in plan.task.metrics:
            metric, score = get_metric(name), _score(plan, model, inputs, data, name, found)
            if score is not None:
                scores[name] = ScoreRecord(
                    **vars(score),
                    signature=metric.signature,
                    higher_is_better=metric.higher_is_better,
                )
    keep_encoded(inputs.encoder)
    if not inputs.engine.main:
        return Scored((), {}, (), 0, 0, ())
    file = folder / predictions_file(split)
    lines = (json.dumps(p.to_json(), ensure_ascii=False) + "\n" for p in found)
    write_atomically(file, "".join(lines))
    files, warned = [file], []
    if split == "test" and not data.labelled and plan.task.submission is not None:
        files.append(folder / plan.task.submission.file)
        warned = write_submission(plan.task, data, [p.prediction for p in found], files[-1])
    return Scored(
        tuple(p.prediction for p in found),
        scores,
        tuple(files),
        sum(p.truncated for p in found),
        sum(p.unparsed for p in found),
        (*_warnings(plan.task, found, split), *warned),
    )


class Selection:
    """Scores (the first train.dev_rows rows of) dev during training by the ranking metric, and
    keeps the predictions of the best evaluation, so that dev need not be predicted again."""

    def __init__(self, plan: Plan, model: Any, inputs: Inputs) -> None:
        assert plan.spec.recipe is not None
        self._plan, self._model, self._inputs = plan, model, inputs
        whole = inputs.splits["dev"]
        rows = whole.rows.first(plan.spec.recipe.dev_rows)
        self._part = Split(whole.file, rows, whole.n_skipped, whole.labelled)
        self._last: list[Prediction] = []
        self.best: list[Prediction] = []

    def score(self) -> float:
        """The ranking metric now, the same in every process."""
        self._last = _predictions(self._plan, self._model, self._inputs, self._part)
        name = self._plan.task.metrics[0]
        score = _score(self._plan, self._model, self._inputs, self._part, name, self._last)
        return self._inputs.engine.broadcast(score.value if score else 0.0)

    def improved(self) -> None:
        """The last evaluation was the best one so far."""
        self.best = self._last

    @property
    def predictions(self) -> list[Prediction] | None:
        """The best evaluation's predictions, if they are of all rows of dev."""
        whole = len(self._part) == len(self._inputs.splits["dev"])
        return self.best if whole else None


def _predictions(plan: Plan, model: Any, inputs: Inputs, data: Split) -> list[Prediction]:
    """All predictions in the main process, none in the others, which make their share."""
    engine = inputs.engine
    own = predict(
        model,
        data.rows.share(engine.rank, engine.world_size),
        plan.task,
        inputs.encoder,
        engine,
        plan.execution.micro_tokens,
        plan.spec.decoding,
    )
    with engine.join(model):
        found = list(own)
    return engine.gather(found)


def _score(
    plan: Plan, model: Any, inputs: Inputs, data: Split, name: str, found: Sequence[Prediction]
) -> Score | None:
    """The metric, in the main process."""
    metric, engine = get_metric(name), inputs.engine
    if metric.kind.likelihood:  # what the backbone gives to the right text, not what it writes
        rows, tokens = data.rows.share(engine.rank, engine.world_size), plan.execution.micro_tokens
        with engine.join(model):
            own = list(answer_losses(model, rows, inputs.encoder, engine, tokens))
        losses = engine.gather(own)
        return metric.score(losses, [None] * len(losses)) if engine.main else None
    if not engine.main:
        return None
    return metric.score([p.prediction for p in found], [p.gold for p in found])


def _warnings(task: Task, found: Sequence[Prediction], split: str) -> Iterator[str]:
    said = {json.dumps(p.prediction, ensure_ascii=False) for p in found}
    wanted = {json.dumps(p.gold, ensure_ascii=False) for p in found}
    if len(said) == 1 and len(wanted) > 1 and not isinstance(task.answer, Rank):
        yield f"every prediction on {split} is {said.pop()}: nothing was learnt"
    unparsed = sum(p.unparsed for p in found)
    if unparsed * 2 > len(found):
        yield f"{unparsed:,} of {len(found):,} texts on {split} could not be read"


def constant_control(plan: Plan, inputs: Inputs) -> ControlRecord:
    """What the ranking metric gives to an answer that looks at nothing.

    The most frequent label, option or text of train (of dev where there is no train); for documents
    the order they stand in.
    """
    task, test = plan.task, inputs.splits["test"]
    source = "train" if "train" in inputs.splits else "dev"
    metric = get_metric(task.metrics[0])
    constant: list[Any]
    if isinstance(task.answer, Rank):
        note = "documents as they stand in the file"
        constant = [[-i for i in range(len(row["target"]))] for row in test.rows]
    else:
        counts = Counter(inputs.splits[source].rows.first(_COUNTED).targets())
        ranked = sorted(counts, key=lambda target: (-counts[target], target))
        constant = [_constant(plan, ranked, row) for row in test.rows]
        shown = ranked[0]
        if isinstance(task.answer, Choice):
            shown = task.answer.labels[shown]
        elif isinstance(task.answer, Options):
            shown = f"option {shown + 1}"
        said = repr(shown) if len(str(shown)) <= 30 else repr(str(shown)[:30] + "…")
        note = f"always {said}, the most frequent in {source}"
    score = metric.score(constant, [gold(task, row) for row in test.rows])
    return ControlRecord(value=score.value, low=score.low, high=score.high, note=note)


def _constant(plan: Plan, ranked: Sequence[Any], row: Row) -> Any:
    answer = plan.task.answer
    if isinstance(answer, Choice):
        return answer.labels[ranked[0]]
    if isinstance(answer, Generate):
        n = plan.spec.decoding.n_best if plan.spec.decoding else 1
        read = [parsed(plan.task, text, row) for text in ranked[:n]]
        return read if n > 1 else read[0]
    return min(ranked[0], len(row[answer.options]) - 1) if isinstance(answer, Options) else None


def write_submission(task: Task, data: Split, predictions: Sequence[Any], path: Path) -> list[str]:
    """Write predictions in the form the benchmark's organisers score, record by record.

    Returns what is to be said of records without a prediction: those with bad rows stand as they
    are, those behind a limit are left out.
    """
    assert task.submission is not None
    left, records, bare, missing = iter(predictions), list[Any](), 0, 0
    for record, rows, n_bad in records_with_rows(task, data.file, []):
        own = [] if missing else list(islice(left, len(rows)))
        if len(own) < len(rows):
            missing += 1
        elif isinstance(record, BadRow) or n_bad:
            bare += 1
            records += [] if isinstance(record, BadRow) else [record]
        else:
            records.append(_filled(task, record, own))
    said = []
    if bare:
        said.append(f"{path.name}: no prediction for {counted(bare, 'record')} with bad rows")
    if missing:
        said.append(f"{path.name}: {counted(missing, 'record')} behind the limit left out")
    if not records:
        raise UserError(f"{data.file.path}: no whole record has a prediction; raise --limit.")
    if task.submission.document is not None:
        records = [task.submission.document(records)]
    lines = (r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records)
    write_atomically(path, "".join(line + "\n" for line in lines))
    return said


def _filled(task: Task, record: Any, predictions: Sequence[Any]) -> Any:
    assert task.submission is not None
    try:
        return task.submission.fill(record, predictions)
    except Exception as error:  # a task file's own code
        raise UserError(
            f"fill() of task {task.name} failed: {type(error).__name__}: {error}."
        ) from error
