"""Scoring rules: from the logits at a batch's targets to the options' scores, and to the loss.

Pure torch, without a model. A target is a token of an answer; its logits are those of the position
that predicts it. docs/scoring.md describes each rule; `cpm_tune.data.encode` decides which tokens
of which sequences are targets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cpm_tune.task.scoring import ScoringName

_MEANS = ("verbaliser-mean", "mean-nll")


class Targets(Protocol):
    """What the rules read of a batch; see `Batch`."""

    @property
    def target_token(self) -> Tensor: ...

    @property
    def target_candidate(self) -> Tensor: ...

    @property
    def in_score(self) -> Tensor: ...

    @property
    def candidates(self) -> Tensor: ...

    @property
    def gold(self) -> Tensor: ...

    @property
    def n_candidates(self) -> int: ...


@dataclass(frozen=True)
class TargetScores:
    """Of each target: its score, fp32 (targets,), a log-probability or by yes-logit a logit; under
    argmax-vocabulary also the most probable token, int64 (targets,)."""

    scores: Tensor
    top: Tensor | None = None


def target_scores(slices: Iterable[Tensor], token: Tensor, rule: ScoringName) -> TargetScores:
    """Score the targets, int64 (targets,), from their fp32 logits.

    A slice is (targets, vocabulary), by yes-logit (targets, 1): the logits of the targets alone.
    """
    scores, tops, start = list[Tensor](), list[Tensor](), 0
    for logits in slices:
        of = token[start : start + len(logits), None]
        start += len(logits)
        if rule == "yes-logit":
            scores.append(logits[:, 0])
            continue
        scores.append(logits.log_softmax(-1).gather(1, of)[:, 0])
        if rule == "argmax-vocabulary":
            tops.append(logits.argmax(-1))
    return TargetScores(torch.cat(scores), torch.cat(tops) if tops else None)


def candidate_scores(scored: TargetScores, batch: Targets, rule: ScoringName) -> Tensor:
    """Return fp32 scores (candidates,): the sum over each candidate's targets that are in the
    score, or their mean."""
    sums = _sums(scored.scores.masked_fill(~batch.in_score, 0), batch)
    return sums / _sums(batch.in_score.float(), batch) if rule in _MEANS else sums


def _sums(values: Tensor, batch: Targets) -> Tensor:
    """Values (targets,) added up by candidate."""
    zeros = values.new_zeros(batch.n_candidates)
    return zeros.index_add(0, batch.target_candidate, values)


def option_scores(scored: TargetScores, batch: Targets, rule: ScoringName) -> Tensor:
    """Return fp32 scores (examples, options), -inf where an example has fewer options.

    By verbaliser-relative an example's candidates are its options in its context and then the same
    options without: a score is the difference of the two.
    """
    scores, numbers = candidate_scores(scored, batch, rule), batch.candidates
    if rule == "verbaliser-relative":
        n = (numbers >= 0).sum(1, keepdim=True) // 2  # options of each example
        column = torch.arange(numbers.shape[1] // 2, device=numbers.device)[None]
        without = numbers.gather(1, (column + n).clamp(max=numbers.shape[1] - 1))
        numbers = numbers[:, : column.shape[1]].masked_fill(column >= n, -1)
        return _table(scores, numbers) - scores[without.clamp(min=0)]
    return _table(scores, numbers)


def _table(scores: Tensor, numbers: Tensor) -> Tensor:
    return scores[numbers.clamp(min=0)].masked_fill(numbers < 0, float("-inf"))


def chosen_options(scored: TargetScores, batch: Targets) -> Tensor:
    """By argmax-vocabulary, return the option of each example whose token is the most probable of
    the vocabulary, int64 (examples,); -1 where that token is no option's. Each candidate has one
    target in the score, and an example's candidates follow one context."""
    assert scored.top is not None
    hit = (scored.top == batch.target_token) & batch.in_score
    hits = _table(_sums(hit.float(), batch), batch.candidates)
    best = hits.max(1)
    return torch.where(best.values > 0, best.indices, -1)


def embedding_cosines(embeddings: Tensor, tokens: Tensor, batch: Targets) -> Tensor:
    """Return fp32 (candidates,): the cosine of the summed embeddings of `tokens` (targets,) and of
    the targets' own tokens, over each candidate's targets that are in the score. `embeddings`:
    (vocabulary, width)."""

    def summed(ids: Tensor) -> Tensor:
        rows = embeddings[ids].float() * batch.in_score[:, None]
        zeros = rows.new_zeros(batch.n_candidates, rows.shape[1])
        return zeros.index_add(0, batch.target_candidate, rows)

    return F.cosine_similarity(summed(tokens), summed(batch.target_token), dim=1)


def loss_sum(scored: TargetScores, batch: Targets, rule: ScoringName) -> Tensor:
    """Return the summed loss of a batch, to be divided by the `loss_count` of the global batch.

    By yes-logit: cross-entropy of the right option (the best document) among the options' logits,
    per example. Otherwise: cross-entropy over the vocabulary, per target; a batch to train on has
    the right answer's targets alone.
    """
    if rule == "yes-logit":
        return F.cross_entropy(option_scores(scored, batch, rule), batch.gold, reduction="sum")
    return -_sums(scored.scores, batch).sum()


def loss_count(batch: Targets, rule: ScoringName) -> int:
    """The number of terms in `loss_sum`."""
    return len(batch.gold) if rule == "yes-logit" else len(batch.target_token)
