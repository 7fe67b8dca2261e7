"""Scores candidates with a backbone: the shared step of the training loss and of choosing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cpm_tune.backbone.model import CPMAnt
from cpm_tune.data.encode import Encoder, Example
from cpm_tune.data.pack import Batch, micro_batches, pack
from cpm_tune.engine import Engine
from cpm_tune.errors import UserError


def candidate_scores(model: CPMAnt, batch: Batch, by_option: bool) -> Tensor:
    """Return fp32 scores (candidates,).

    By option: the logit of the answer word. By verbaliser: the sum of its tokens' log-
    probabilities. The head is applied at target positions only.
    """
    hidden = model(batch.ids, batch.segment, batch.context, batch.span).flatten(0, 1)
    at_targets = hidden.index_select(0, batch.target_index)
    if by_option:
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


def loss_sum(model: CPMAnt, batch: Batch, by_option: bool) -> Tensor:
    """Return the summed loss of a batch, to be divided by `loss_count` over the global batch.

    By option: cross-entropy of the right option among the options' logits, per example. By
    verbaliser: cross-entropy over the vocabulary, per token of the right answer.
    """
    scores = candidate_scores(model, batch, by_option)
    if by_option:
        return F.cross_entropy(option_table(scores, batch), batch.gold, reduction="sum")
    return -scores.sum()


def loss_count(batch: Batch, by_option: bool) -> int:
    """How many terms `loss_sum` adds up."""
    return len(batch.gold) if by_option else len(batch.target_token)


@dataclass(frozen=True)
class Prediction:
    """One scored example; `scores` in the order of the options."""

    id: str
    scores: tuple[float, ...]
    prediction: int
    target: int
    truncated: bool

    def to_json(self, labels: tuple[Any, ...]) -> dict[str, Any]:
        """The line of a predictions file; scores are rounded to 6 decimals."""
        return {
            "id": self.id,
            "scores": [round(score, 6) for score in self.scores],
            "prediction": labels[self.prediction],
            "target": labels[self.target],
        }


def choose(
    model: CPMAnt, rows: Iterable[Any], encoder: Encoder, engine: Engine, micro_tokens: int
) -> Iterator[Prediction]:
    """Yield a prediction for each row, in order. The first of equally good options wins."""
    was_training = model.training
    model.eval()
    try:
        examples: Iterable[Example] = (encoder.encode(row) for row in rows)
        for group in micro_batches(examples, micro_tokens):
            batch = pack(group, encoder).to(engine.device)
            with torch.inference_mode(), engine.autocast():
                table = option_table(candidate_scores(model, batch, encoder.by_option), batch)
            wrong = table.isnan().any(dim=1) | (table == float("inf")).any(dim=1)
            if bool(wrong.any()):
                named = group[int(wrong.nonzero()[0])].id
                raise UserError(
                    f"the scores of example {named} are not finite: the backbone's weights are "
                    "broken, or overflow in this precision; try --precision fp32."
                )
            best = table.argmax(dim=1).tolist()
            for example, scores, prediction in zip(group, table.tolist(), best, strict=True):
                yield Prediction(
                    example.id,
                    tuple(scores[: len(example.candidates)]),
                    prediction,
                    example.gold,
                    example.truncated,
                )
    finally:
        model.train(was_training)
