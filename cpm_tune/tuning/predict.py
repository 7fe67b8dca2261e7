"""What a backbone says to rows: scores of options, orders of documents, texts.

The loss of training and the scores of choosing share one step, `candidate_scores`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cpm_tune.backbone.model import CPMAnt
from cpm_tune.data.encode import Encoder
from cpm_tune.data.encoded import encoded
from cpm_tune.data.example import Example, Ids
from cpm_tune.data.pack import Batch, micro_batches, pack
from cpm_tune.decode import Hypothesis, Request, generate
from cpm_tune.engine import Engine
from cpm_tune.engine.device import is_out_of_memory
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Decoding
from cpm_tune.task import Choice, Generate, Rank, Row, Task
from cpm_tune.task.answers import gold, parsed

_WRITTEN_AT_ONCE = 256  # rows handed to the decoder, which makes its own batches of them


def candidate_scores(model: CPMAnt, batch: Batch, scores_in_prompt: bool) -> Tensor:
    """Return fp32 scores (candidates,).

    By option: the logit of the answer word. By verbaliser: the sum of its tokens' log-
    probabilities. The head is applied at target positions only.
    """
    at_targets = model(
        batch.ids,
        batch.segment,
        batch.context,
        lengths=batch.lengths,
        targets=batch.target_index,
    )[0]
    if scores_in_prompt:
        word = model.input_embedding(batch.target_token)
        scores = (at_targets.float() * word.float()).sum(-1)
    else:
        log_p = model.logits(at_targets).float().log_softmax(-1)
        scores = log_p.gather(1, batch.target_token[:, None])[:, 0]
    return scores.new_zeros(batch.n_candidates).index_add(0, batch.target_candidate, scores)


def option_table(scores: Tensor, batch: Batch) -> Tensor:
    """Candidate scores (candidates,) as (examples, options); -inf where there is no option."""
    table = scores[batch.candidates.clamp(min=0)]
    return table.masked_fill(batch.candidates < 0, float("-inf"))


def loss_sum(model: CPMAnt, batch: Batch, scores_in_prompt: bool) -> Tensor:
    """Return the summed loss of a batch, to be divided by `loss_count` over the global batch.

    By option: cross-entropy of the right option (the best document) among the options' logits, per
    example. Otherwise: cross-entropy over the vocabulary, per token of the right answer.
    """
    scores = candidate_scores(model, batch, scores_in_prompt)
    if scores_in_prompt:
        return F.cross_entropy(option_table(scores, batch), batch.gold, reduction="sum")
    return -scores.sum()


def loss_count(batch: Batch, scores_in_prompt: bool) -> int:
    """How many terms `loss_sum` adds up."""
    return len(batch.gold) if scores_in_prompt else len(batch.target_token)


@dataclass(frozen=True)
class Prediction:
    """What the backbone says to one row.

    `prediction` and `gold` have the form that the task's metrics compare: a label, the number of an
    option, documents' scores and grades, or what the parser read in the generated `text` (None
    where it could not, a list of such with n_best above 1). `scores`: of the options, in order.
    """

    id: str
    prediction: Any
    gold: Any
    truncated: bool
    scores: tuple[float, ...] = ()
    text: str | None = None
    unparsed: bool = False

    def to_json(self) -> dict[str, Any]:
        """The line of a predictions file; scores are rounded to 6 decimals."""
        line: dict[str, Any] = {"id": self.id}
        if self.scores:
            line["scores"] = [round(score, 6) for score in self.scores]
        if self.text is not None:
            line["text"] = self.text
        return {**line, "prediction": self.prediction, "target": self.gold}


def predict(
    model: CPMAnt,
    rows: Iterable[Row],
    task: Task,
    encoder: Encoder,
    engine: Engine,
    micro_tokens: int,
    decoding: Decoding | None,
) -> Iterator[Prediction]:
    """Yield a prediction for each row, in order."""
    if isinstance(task.answer, Generate):
        assert decoding is not None
        return _write(model, rows, task, encoder, engine, micro_tokens, decoding)
    return _choose(model, rows, task, encoder, engine, micro_tokens)


@contextlib.contextmanager
def _evaluating(model: CPMAnt) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _scored(
    model: CPMAnt, rows: Iterable[Row], encoder: Encoder, engine: Engine, micro_tokens: int
) -> Iterator[tuple[Row, Example, tuple[float, ...]]]:
    """Yield (row, example, its candidates' scores), in order."""
    seen: list[Row] = []

    def examples() -> Iterator[Example]:
        for row, example in encoded(rows, encoder, "score"):
            seen.append(row)
            yield example

    with _evaluating(model):
        waiting = micro_batches(examples(), micro_tokens)
        while (group := next(waiting, None)) is not None:
            table = _scores(model, group, encoder, engine)
            if table is None:
                half = len(group) // 2
                waiting = chain([group[:half], group[half:]], waiting)
                continue
            wrong = table.isnan().any(dim=1) | (table == float("inf")).any(dim=1)
            if bool(wrong.any()):
                named = group[int(wrong.nonzero()[0])].id
                raise UserError(
                    f"the scores of example {named} are not finite: the backbone's weights are "
                    "broken, or overflow in this precision; try --precision fp32."
                )
            for example, scores in zip(group, table.tolist(), strict=True):
                yield seen.pop(0), example, tuple(scores[: len(example.candidates)])


def _scores(model: CPMAnt, group: list[Example], encoder: Encoder, engine: Engine) -> Tensor | None:
    """The table of a group's scores, or None where memory gave out and half of it may be tried."""
    try:
        batch = pack(group, encoder).to(engine.device)
        with torch.inference_mode(), engine.autocast():
            return option_table(candidate_scores(model, batch, encoder.scores_in_prompt), batch)
    except (RuntimeError, MemoryError) as error:
        if not engine.splits_on_oom or len(group) == 1 or not is_out_of_memory(error):
            raise
        return None


def _choose(
    model: CPMAnt,
    rows: Iterable[Row],
    task: Task,
    encoder: Encoder,
    engine: Engine,
    micro_tokens: int,
) -> Iterator[Prediction]:
    """Predictions by options' scores. The first of equally good options wins."""
    for row, example, scores in _scored(model, rows, encoder, engine, micro_tokens):
        best = max(range(len(scores)), key=lambda k: (scores[k], -k))
        prediction: Any = best
        if isinstance(task.answer, Choice):
            prediction = task.answer.labels[best]
        elif isinstance(task.answer, Rank):
            prediction = [round(score, 6) for score in scores]
        yield Prediction(example.id, prediction, gold(task, row), example.truncated, scores)


def _write(
    model: CPMAnt,
    rows: Iterable[Row],
    task: Task,
    encoder: Encoder,
    engine: Engine,
    micro_tokens: int,
    decoding: Decoding,
) -> Iterator[Prediction]:
    """Predictions by generated text, read by the task's parser."""
    stream, tokens = encoded(rows, encoder, "prefix"), micro_tokens
    while chunk := list(islice(stream, _WRITTEN_AT_ONCE)):
        prefixes = [example.sequences[0].ids for _, example in chunk]
        while (written := _generated(model, prefixes, encoder, engine, tokens, decoding)) is None:
            tokens //= 2
        for (row, example), found in zip(chunk, written, strict=True):
            texts = [encoder.tokenizer.decode(hypothesis.ids) for hypothesis in found]
            read = [parsed(task, text, row) for text in texts]
            yield Prediction(
                str(row["id"]),
                read if decoding.n_best > 1 else read[0],
                gold(task, row),
                example.truncated,
                text=texts[0],
                unparsed=read[0] is None,
            )


def _generated(
    model: CPMAnt,
    prefixes: list[Ids],
    encoder: Encoder,
    engine: Engine,
    tokens: int,
    decoding: Decoding,
) -> list[list[Hypothesis]] | None:
    """Continuations of prefixes, or None if memory ran out and half the tokens may be tried."""
    request = Request(
        decoding,
        segment=encoder.encoding.segment,
        n_prompt=encoder.n_prompt,
        stop=frozenset({encoder.tokenizer.eos}),
        banned=frozenset(encoder.tokenizer.never_written),
    )
    try:
        with _evaluating(model), engine.autocast():
            return generate(model, prefixes, request, micro_tokens=tokens)
    except (RuntimeError, MemoryError) as error:
        if not engine.splits_on_oom or tokens <= 1 or not is_out_of_memory(error):
            raise
        return None


def answer_losses(
    model: CPMAnt, rows: Iterable[Row], encoder: Encoder, engine: Engine, micro_tokens: int
) -> Iterator[tuple[float, int]]:
    """Yield (summed negative log-likelihood, tokens) of each row's text to write, end included."""
    for _, example, scores in _scored(model, rows, encoder, engine, micro_tokens):
        yield -scores[0], len(example.candidates[0])
