"""What a backbone predicts for rows: scores of options, orders of documents, texts.

The loss of training and the scores of choosing share one step, `scored_targets`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from cpm_tune.backbone.base import Backbone, Batch, checked_scores, collated, micro_batches
from cpm_tune.backbone.example import Example, Ids
from cpm_tune.data.encode import Encoder
from cpm_tune.data.encoded import encoded
from cpm_tune.decode import Hypothesis, Request, generate
from cpm_tune.engine.device import unless_out_of_memory
from cpm_tune.engine.engine import Engine
from cpm_tune.errors import NotFiniteError, UserError
from cpm_tune.planning.plan import Plan
from cpm_tune.schema.spec import Decoding
from cpm_tune.task import Choice, Rank, Row, Task
from cpm_tune.task.answers import gold, parsed
from cpm_tune.task.scoring import ScoringName
from cpm_tune.tuning.scoring import (
    TargetScores,
    chosen_options,
    embedding_cosines,
    loss_sum,
    option_scores,
    target_scores,
)

_DECODED_AT_ONCE = 256  # rows handed to the decoder, which makes its own batches of them


def scored_targets(model: Backbone, batch: Batch, rule: ScoringName) -> TargetScores:
    """Run a batch and score its targets."""
    alone = batch.target_token[:, None] if rule == "yes-logit" else None
    return target_scores(checked_scores(model, batch, alone), batch.target_token, rule)


def batch_loss(model: Backbone, batch: Batch, rule: ScoringName) -> Tensor:
    """Run a batch to train on; return its summed loss, see `scoring.loss_sum`."""
    return loss_sum(scored_targets(model, batch, rule), batch, rule)


@dataclass(frozen=True)
class Prediction:
    """What the backbone predicts for one row.

    `prediction` and `gold` have the form that the task's metrics compare: a label, the number of an
    option, documents' scores and grades, or what the parser read in the generated `text` (None
    if it could not, a list of such with n_best above 1). `scores`: of the options, in order.
    `dropped`: shots that did not fit. By argmax-vocabulary the prediction is None, and `unparsed`,
    where another token is more probable than each option's.
    """

    id: str
    prediction: Any
    gold: Any
    truncated: bool
    scores: tuple[float, ...] = ()
    text: str | None = None
    unparsed: bool = False
    dropped: int = 0

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
    are generated; `trained` says whether a delta was. With several processes, each has its own
    predictor.
    """

    model: Backbone
    task: Task
    encoder: Encoder
    engine: Engine
    micro_tokens: int
    decoding: Decoding | None = None
    trained: bool = False

    def predict(self, rows: Iterable[Row]) -> Iterator[Prediction]:
        """Yield a prediction for each row, in order."""
        return self._choose(rows) if self.decoding is None else self._generate(rows, self.decoding)

    def answer_losses(self, rows: Iterable[Row]) -> Iterator[tuple[float, int]]:
        """Yield (summed negative log-likelihood, tokens) of each row's gold text, end included."""
        for _, example, scores, _ in self._scored(rows):
            answer = example.candidates[0]
            yield -scores[0], len(answer.ids) - answer.lead

    def answer_cosines(self, rows: Iterable[Row]) -> Iterator[float]:
        """Yield, of each row's gold text, the cosine of the summed input embeddings of its tokens
        and of the tokens that are the most probable in their places.

        Raises UserError if the backbone has no table of embeddings in one piece.
        """
        table = self.model.prompt_table()
        if table is None or not isinstance(table.tokens, Tensor) or hasattr(table.tokens, "_spec"):
            raise UserError(
                "metric embedding_average needs the backbone's input embeddings in one piece; "
                "omit --shard, or choose another template."
            )
        vocabulary = self.model.config.shape.vocabulary
        examples = (example for _, example in encoded(rows, self.encoder, "score"))
        groups = micro_batches(examples, self.encoder.layout, self.micro_tokens, vocabulary)
        with _evaluating(self.model):
            for group in groups:
                batch = collated(self.encoder.layout, group).to(self.engine.device)
                with torch.inference_mode(), self.engine.autocast():
                    scores = checked_scores(self.model, batch, None)
                    top = torch.cat([logits.argmax(-1) for logits in scores])
                    cosines = embedding_cosines(table.tokens, top, batch)
                yield from cosines[batch.candidates[:, 0]].tolist()

    def _choose(self, rows: Iterable[Row]) -> Iterator[Prediction]:
        """Predict by the options' scores. The first of equally good options wins."""
        for row, example, scores, best in self._scored(rows):
            prediction: Any = best
            if best is not None and isinstance(self.task.answer, Choice):
                prediction = self.task.answer.labels[best]
            elif isinstance(self.task.answer, Rank):
                prediction = [round(score, 6) for score in scores]
            yield Prediction(
                example.id,
                prediction,
                gold(self.task, row),
                example.truncated,
                scores,
                unparsed=best is None,
                dropped=example.dropped,
            )

    def _scored(
        self, rows: Iterable[Row]
    ) -> Iterator[tuple[Row, Example, tuple[float, ...], int | None]]:
        """Yield (row, example, its options' scores, the chosen option if any), in order."""
        rows_read: list[Row] = []

        def examples() -> Iterator[Example]:
            for row, example in encoded(rows, self.encoder, "score"):
                rows_read.append(row)
                yield example

        with _evaluating(self.model):
            layout, vocabulary = self.encoder.layout, self.model.config.shape.vocabulary
            groups = micro_batches(examples(), layout, self.micro_tokens, vocabulary)
            read: Iterator[tuple[Example, tuple[float, ...], int | None]] = iter(())
            while (group := next(groups, None)) is not None:
                scored = self._option_scores(group)
                if scored is None:
                    half = len(group) // 2
                    groups = chain([group[:half], group[half:]], groups)
                    continue
                for example, scores, best in read:
                    yield rows_read.pop(0), example, scores, best
                read = self._read(group, *scored)  # a GPU computes while the next are encoded
            for example, scores, best in read:
                yield rows_read.pop(0), example, scores, best

    def _read(
        self, group: list[Example], table: Tensor, chosen: Tensor
    ) -> Iterator[tuple[Example, tuple[float, ...], int | None]]:
        """Yield (example, its options' scores, the chosen option if any), in order."""
        table, chosen = table.cpu(), chosen.cpu()
        broken = table.isnan().any(dim=1) | (table == float("inf")).any(dim=1)
        if bool(broken.any()):
            raise NotFiniteError(
                f"the scores of example {group[int(broken.nonzero()[0])].id} are not finite: the "
                "backbone's weights are broken, or overflow in this precision; try --precision "
                "fp32."
            )
        for example, line, best in zip(group, table.tolist(), chosen.tolist(), strict=True):
            scores = tuple(line[: self.encoder.n_options(example)])
            yield example, scores, best if best >= 0 else None

    def _option_scores(self, group: list[Example]) -> tuple[Tensor, Tensor] | None:
        """Scores (examples, options) and the chosen options (examples,), -1 for none; None if
        memory ran out and halves of the group may fit."""
        engine, rule = self.engine, self.encoder.rule

        def score() -> tuple[Tensor, Tensor]:
            batch = collated(self.encoder.layout, group).to(engine.device)
            with torch.inference_mode(), engine.autocast():
                scored = scored_targets(self.model, batch, rule)
                table = option_scores(scored, batch, rule)
                if rule == "argmax-vocabulary":
                    return table, chosen_options(scored, batch)
                return table, table.argmax(1)  # the first of equally good ones

        return unless_out_of_memory(score, engine.splits_on_oom and len(group) > 1)

    def _generate(self, rows: Iterable[Row], decoding: Decoding) -> Iterator[Prediction]:
        """Predict by generated text, read by the task's parser."""
        stream, tokens = encoded(rows, self.encoder, "prefix"), self.micro_tokens
        decode, end = self.encoder.tokenizer.decode, self.encoder.template.end
        while chunk := list(islice(stream, _DECODED_AT_ONCE)):
            prefixes = [example.contexts[0] for _, example in chunk]
            while (generated := self._continued(prefixes, decoding, tokens)) is None:
                tokens //= 2
            for (row, example), hypotheses in zip(chunk, generated, strict=True):
                texts = [decode(each.ids).removesuffix(end) for each in hypotheses]
                answers = [parsed(self.task, text, row) for text in texts]
                yield Prediction(
                    str(row["id"]),
                    answers if decoding.n_best > 1 else answers[0],
                    gold(self.task, row),
                    example.truncated,
                    text=texts[0],
                    unparsed=answers[0] is None,
                    dropped=example.dropped,
                )

    def _continued(
        self, prefixes: list[Ids], decoding: Decoding, tokens: int
    ) -> list[list[Hypothesis]] | None:
        """Hypotheses after each prefix; None if memory ran out and half the tokens may fit."""
        encoder, engine = self.encoder, self.engine
        request = Request(
            decoding,
            encoder.layout,
            stop=encoder.stop,
            banned=frozenset(encoder.tokenizer.never_written) - encoder.stop,
        )

        def decode() -> list[list[Hypothesis]]:
            with _evaluating(self.model), engine.autocast():
                return generate(self.model, prefixes, request, micro_tokens=tokens)

        return unless_out_of_memory(decode, engine.splits_on_oom and tokens > 1)


def make_predictor(plan: Plan, model: Any, encoder: Encoder, engine: Engine) -> Predictor:
    """The predictor of a plan with its backbone, prepared by the engine."""
    tokens, decoding = plan.execution.micro_tokens, plan.spec.decoding
    trained = plan.spec.recipe is not None
    return Predictor(model, plan.task, encoder, engine, tokens, decoding, trained)


@contextlib.contextmanager
def _evaluating(model: Backbone) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
