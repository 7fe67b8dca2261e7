"""What a backbone predicts for rows: scores of options, orders of documents, texts.

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

from cpm_tune.backbone.base import Backbone, Batch, micro_batches
from cpm_tune.backbone.example import Example, Ids
from cpm_tune.data.encode import Encoder
from cpm_tune.data.encoded import encoded
from cpm_tune.decode import Hypothesis, Request, generate
from cpm_tune.engine.device import unless_out_of_memory
from cpm_tune.engine.engine import Engine
from cpm_tune.errors import UserError
from cpm_tune.planning.plan import Plan
from cpm_tune.schema.spec import Decoding
from cpm_tune.task import Choice, Rank, Row, Task
from cpm_tune.task.answers import gold, parsed

_DECODED_AT_ONCE = 256  # rows handed to the decoder, which makes its own batches of them


def candidate_scores(model: Backbone, batch: Batch, scores_in_prompt: bool) -> Tensor:
    """Return fp32 scores (candidates,).

    By option: the logit of the answer word. By verbaliser: the sum of its tokens' log-
    probabilities.
    """
    token, parts, start = batch.target_token[:, None], list[Tensor](), 0
    for logits in model.scores(batch, token if scores_in_prompt else None):
        end = start + len(logits)
        if scores_in_prompt:
            parts.append(logits[:, 0])
        else:
            parts.append(logits.log_softmax(-1).gather(1, token[start:end])[:, 0])
        start = end
    scores = torch.cat(parts)
    return scores.new_zeros(batch.n_candidates).index_add(0, batch.target_candidate, scores)


def option_table(scores: Tensor, batch: Batch) -> Tensor:
    """Candidate scores (candidates,) as (examples, options); -inf for a missing option."""
    table = scores[batch.candidates.clamp(min=0)]
    return table.masked_fill(batch.candidates < 0, float("-inf"))


def loss_sum(model: Backbone, batch: Batch, scores_in_prompt: bool) -> Tensor:
    """Return the summed loss of a batch, to be divided by the `loss_count` of the global batch.

    By option: cross-entropy of the right option (the best document) among the options' logits, per
    example. Otherwise: cross-entropy over the vocabulary, per token of the right answer.
    """
    scores = candidate_scores(model, batch, scores_in_prompt)
    if scores_in_prompt:
        return F.cross_entropy(option_table(scores, batch), batch.gold, reduction="sum")
    return -scores.sum()


def loss_count(batch: Batch, scores_in_prompt: bool) -> int:
    """The number of terms in `loss_sum`."""
    return len(batch.gold) if scores_in_prompt else len(batch.target_token)


@dataclass(frozen=True)
class Prediction:
    """What the backbone predicts for one row.

    `prediction` and `gold` have the form that the task's metrics compare: a label, the number of an
    option, documents' scores and grades, or what the parser read in the generated `text` (None
    if it could not, a list of such with n_best above 1). `scores`: of the options, in order.
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


@dataclass(frozen=True)
class Predictor:
    """A backbone, with its delta, that answers rows of one task.

    `micro_tokens` bounds the tokens of one forward pass; `decoding` is there if the task's answers
    are generated. With several processes, each has its own predictor.
    """

    model: Backbone
    task: Task
    encoder: Encoder
    engine: Engine
    micro_tokens: int
    decoding: Decoding | None = None

    def predict(self, rows: Iterable[Row]) -> Iterator[Prediction]:
        """Yield a prediction for each row, in order."""
        return self._choose(rows) if self.decoding is None else self._generate(rows, self.decoding)

    def answer_losses(self, rows: Iterable[Row]) -> Iterator[tuple[float, int]]:
        """Yield (summed negative log-likelihood, tokens) of each row's gold text, end included."""
        for _, example, scores in self._scored(rows):
            yield -scores[0], len(example.candidates[0].ids)

    def _choose(self, rows: Iterable[Row]) -> Iterator[Prediction]:
        """Predict by the options' scores. The first of equally good options wins."""
        for row, example, scores in self._scored(rows):
            best = max(range(len(scores)), key=lambda k: (scores[k], -k))
            prediction: Any = best
            if isinstance(self.task.answer, Choice):
                prediction = self.task.answer.labels[best]
            elif isinstance(self.task.answer, Rank):
                prediction = [round(score, 6) for score in scores]
            target = gold(self.task, row)
            yield Prediction(example.id, prediction, target, example.truncated, scores)

    def _scored(self, rows: Iterable[Row]) -> Iterator[tuple[Row, Example, tuple[float, ...]]]:
        """Yield (row, example, its candidates' scores), in order."""
        rows_read: list[Row] = []

        def examples() -> Iterator[Example]:
            for row, example in encoded(rows, self.encoder, "score"):
                rows_read.append(row)
                yield example

        with _evaluating(self.model):
            layout, vocabulary = self.encoder.layout, self.model.config.shape.vocabulary
            groups = micro_batches(examples(), layout, self.micro_tokens, vocabulary)
            while (group := next(groups, None)) is not None:
                table = self._option_scores(group)
                if table is None:
                    half = len(group) // 2
                    groups = chain([group[:half], group[half:]], groups)
                    continue
                broken = table.isnan().any(dim=1) | (table == float("inf")).any(dim=1)
                if bool(broken.any()):
                    raise UserError(
                        f"the scores of example {group[int(broken.nonzero()[0])].id} are not "
                        "finite: the backbone's weights are broken, or overflow in this precision; "
                        "try --precision fp32."
                    )
                for example, scores in zip(group, table.tolist(), strict=True):
                    yield rows_read.pop(0), example, tuple(scores[: len(example.candidates)])

    def _option_scores(self, group: list[Example]) -> Tensor | None:
        """Scores (examples, options); None if memory ran out and halves of the group may fit."""
        engine, scores_in_prompt = self.engine, self.encoder.scores_in_prompt

        def score() -> Tensor:
            batch = self.encoder.layout.collate(group).to(engine.device)
            with torch.inference_mode(), engine.autocast():
                return option_table(candidate_scores(self.model, batch, scores_in_prompt), batch)

        return unless_out_of_memory(score, engine.splits_on_oom and len(group) > 1)

    def _generate(self, rows: Iterable[Row], decoding: Decoding) -> Iterator[Prediction]:
        """Predict by generated text, read by the task's parser."""
        stream, tokens = encoded(rows, self.encoder, "prefix"), self.micro_tokens
        decode = self.encoder.tokenizer.decode
        while chunk := list(islice(stream, _DECODED_AT_ONCE)):
            prefixes = [example.contexts[0] for _, example in chunk]
            while (generated := self._continued(prefixes, decoding, tokens)) is None:
                tokens //= 2
            for (row, example), hypotheses in zip(chunk, generated, strict=True):
                texts = [decode(hypothesis.ids) for hypothesis in hypotheses]
                answers = [parsed(self.task, text, row) for text in texts]
                yield Prediction(
                    str(row["id"]),
                    answers if decoding.n_best > 1 else answers[0],
                    gold(self.task, row),
                    example.truncated,
                    text=texts[0],
                    unparsed=answers[0] is None,
                )

    def _continued(
        self, prefixes: list[Ids], decoding: Decoding, tokens: int
    ) -> list[list[Hypothesis]] | None:
        """Hypotheses after each prefix; None if memory ran out and half the tokens may fit."""
        encoder, engine = self.encoder, self.engine
        request = Request(
            decoding,
            encoder.layout,
            stop=frozenset({encoder.tokenizer.eos}),
            banned=frozenset(encoder.tokenizer.never_written),
        )

        def decode() -> list[list[Hypothesis]]:
            with _evaluating(self.model), engine.autocast():
                return generate(self.model, prefixes, request, micro_tokens=tokens)

        return unless_out_of_memory(decode, engine.splits_on_oom and tokens > 1)


def make_predictor(plan: Plan, model: Any, encoder: Encoder, engine: Engine) -> Predictor:
    """The predictor of a plan with its backbone, prepared by the engine."""
    tokens, decoding = plan.execution.micro_tokens, plan.spec.decoding
    return Predictor(model, plan.task, encoder, engine, tokens, decoding)


@contextlib.contextmanager
def _evaluating(model: Backbone) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
