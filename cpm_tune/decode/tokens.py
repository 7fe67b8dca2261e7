"""From logits to the tokens that may follow: the best ones, or one that is drawn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cpm_tune.decode.search import NEVER, Extension, Request, Search, padded
from cpm_tune.errors import NotFiniteError


def ranked(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row (rows, n), best first, and their columns; ties: lower column."""
    if k == 1:
        return values.max(dim=1, keepdim=True)  # documented to be the first of equal ones
    if k >= values.shape[1]:
        best, column = values.sort(dim=1, descending=True, stable=True)
        return best, column
    best, column = values.topk(k + 1)
    for row in (best[:, k - 1] == best[:, k]).nonzero()[:, 0].tolist():
        # A tie over the edge: topk does not say which of the equal ones it takes.
        at_least = (values[row] >= best[row, k - 1]).nonzero()[:, 0]
        order = values[row, at_least].argsort(descending=True, stable=True)
        column[row, :k] = at_least[order[:k]]
    column = column[:, :k].sort(dim=1).values
    best, order = values.gather(1, column).sort(dim=1, descending=True, stable=True)
    return best, column.gather(1, order)


def penalised(logits: Tensor, generated: Tensor, penalty: float) -> Tensor:
    """A copy of logits (..., vocab) in which those of `generated` (..., any) are made smaller."""
    chosen = logits.gather(-1, generated)
    smaller = torch.where(chosen < 0, chosen * penalty, chosen / penalty)
    return logits.scatter(-1, generated, smaller)


def truncated(log_p: Tensor, top_k: int, top_p: float) -> Tensor:
    """Log-probabilities (rows, vocab), -inf outside of the `top_k` and of the nucleus `top_p`.

    The nucleus (Holtzman et al. 2020): the fewest most probable tokens whose sum is `top_p`.
    """
    best, token = ranked(log_p, top_k or log_p.shape[1])
    p = best.double().softmax(1)
    best = best.masked_fill(p.cumsum(1) - p >= top_p, NEVER)
    return torch.full_like(log_p, NEVER).scatter(1, token, best)


def draw(log_p: Tensor, uniform: Tensor) -> Tensor:
    """Tokens (rows, 1) by inverting the distribution at `uniform` float64 (rows, 1) in [0, 1)."""
    total = log_p.double().softmax(1).cumsum(1)
    return torch.searchsorted(total / total[:, -1:], uniform, right=True)


def _drawn(search: Tensor, searches: Sequence[Search], request: Request, step: int) -> Tensor:
    settings = request.settings
    uniform = torch.tensor([[s.uniform[step]] for s in searches], device=search.device)
    log_p = search / settings.temperature
    if settings.top_k or settings.top_p < 1:
        log_p = truncated(log_p, settings.top_k, settings.top_p)
    return draw(log_p, uniform)


def _penalised(logits: Tensor, searches: Sequence[Search], request: Request) -> Tensor:
    window, beams = request.settings.repetition_window, logits.shape[1]
    generated = [padded([beam.ids[-window:] for beam in s.beams], beams) for s in searches]
    return penalised(
        logits,
        torch.tensor(generated, device=logits.device),
        request.settings.repetition_penalty,
    )


def _in_parts(search: Tensor, ends: Tensor, searches: Sequence[Search], request: Request) -> None:
    """Of the tokens that end parts, allow each beam that of its own part, once that is long enough;
    and nothing else, if it has its greatest length."""
    for row, each in enumerate(searches):
        for beam, live in enumerate(each.beams):
            part, length = 0, 0
            for token in live.ids:
                part, length = (part + 1, 0) if token == request.ends[part] else (part, length + 1)
            if length >= request.lengths[part][-1]:
                search[row, beam] = NEVER
            if length >= request.lengths[part][0]:
                search[row, beam, request.ends[part]] = ends[row, beam, part]


def extensions(
    logits: Tensor, searches: Sequence[Search], request: Request, step: int
) -> list[list[list[Extension]]]:
    """For every search and live beam the tokens that may follow, the best first.

    logits: fp32 (searches, beams, vocab). Raises UserError if they are not finite.
    """
    settings = request.settings
    log_prob = search = logits.log_softmax(-1)
    if bool(log_prob[..., 0].isnan().any()):  # one that is not a number makes its whole row so
        raise NotFiniteError(
            "the scores of the next token are not finite: the backbone's weights are broken, or "
            "overflow in this precision; try --precision fp32."
        )
    if settings.repetition_penalty != 1 and step:
        search = _penalised(logits, searches, request).log_softmax(-1)
    not_now = {*request.banned, *(request.stop if step < settings.min_new_tokens else ())}
    not_now |= request.not_first if step == 0 else set()
    never = torch.tensor([*not_now], dtype=torch.long, device=logits.device)
    ends = search[..., list(request.ends)].clone()
    search = search.index_fill_(-1, never, NEVER)
    if request.ends:
        _in_parts(search, ends, searches, request)
    search = search.flatten(0, 1)
    if settings.sample:
        token = _drawn(search, searches, request, step)
    else:
        # As many as can matter: a beam has at most one extension for each stop token.
        many = settings.beams + len(request.stop) if settings.beams > 1 else 1
        _, token = ranked(search, many)
    columns = token, search.gather(1, token), log_prob.flatten(0, 1).gather(1, token)
    stacked = torch.stack([column.double() for column in columns], dim=-1)
    table = stacked.view(*logits.shape[:2], -1, 3).tolist()
    return [
        [[(int(token), *scores) for token, *scores in beam] for beam in row[: len(live.beams)]]
        for row, live in zip(table, searches, strict=True)
    ]
