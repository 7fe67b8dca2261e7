"""Generates text in batches, after prefixes or in blanks: greedy, beam search and sampling, with a
cache of keys and values.

A prefix is encoded once, its cache is the backbone's own (`cpm_tune.backbone.base.Cache`). What a
generated token's logits depend on is what training computes for an answer after its context.

How beams are ranked and when a search ends: `cpm_tune.decode.search`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import torch

from cpm_tune.backbone.base import Backbone, check_logits
from cpm_tune.common.progress import working
from cpm_tune.decode.search import Hypothesis, Request, Search, padded, remaining
from cpm_tune.decode.tokens import extensions
from cpm_tune.engine.memory import keeping_freed

__all__ = ["Hypothesis", "Request", "generate", "infill", "stream"]


@torch.inference_mode()
def _run(model: Backbone, searches: list[Search]) -> Iterator[None]:
    """Carry out searches of one kind as one batch; pauses after each step."""
    request = searches[0].request
    beams, last = request.settings.beams, request.settings.max_new_tokens - 1
    was_training = model.training
    model.eval()
    try:
        rows = model.cache(
            request.layout,
            [search.prefix for search in searches],
            beams,
            request.positions,
            [search.masked for search in searches],
        )
        logits = check_logits(model, rows.start(), len(searches), 1)
        for step in range(last + 1):
            followers = extensions(logits, searches, request, step)
            for search, each in zip(searches, followers, strict=True):
                search.advance(each)
            yield
            alive = [not search.decided for search in searches]
            if step == last or not any(alive):
                return
            if not all(alive):
                order = remaining(alive)
                searches = [searches[row] for row in order]
                rows.keep(order)
            tokens = [padded([beam.ids[-1] for beam in s.beams], beams) for s in searches]
            parents = [padded(s.parents, beams) for s in searches]
            logits = rows.step(*(torch.tensor(t, device=logits.device) for t in (tokens, parents)))
            check_logits(model, logits, len(searches), beams)
    finally:
        model.train(was_training)


def _searches(
    texts: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], request: Request, vocab: int
) -> list[Search]:
    """One search per text (ids, masked positions)."""
    never = {*request.banned, *(request.stop if request.settings.min_new_tokens else ())}
    if len(never | request.not_first) >= vocab:
        raise ValueError(f"all {vocab} tokens are banned: nothing can be generated")
    occurrences: Counter[tuple[tuple[int, ...], ...]] = Counter()
    searches = []
    for text in texts:
        ids, masked = text
        searches.append(Search(ids, occurrences[text], request.filling(len(masked)), masked))
        occurrences[text] += 1
    return searches


def _after(prefixes: Sequence[Sequence[int]], request: Request, model: Backbone) -> list[Search]:
    """The searches for continuations of prefixes."""
    least = max(1, request.layout.shortest)
    for number, ids in enumerate(prefixes):
        if len(ids) < least:
            raise ValueError(f"prefix {number} has {len(ids)} ids, expected at least {least}")
    return _searches([(tuple(ids), ()) for ids in prefixes], request, model.config.shape.vocabulary)


def _carry_out(
    model: Backbone, searches: Sequence[Search], micro_tokens: int
) -> list[list[Hypothesis]]:
    """Carry out searches in batches of rows x cached positions <= `micro_tokens`.

    Prefixes of similar length go together, the longest first, with equally many masked positions.
    """
    group: list[Search] = []
    with keeping_freed(), working("generating", len(searches), "text") as work:
        for search in sorted(
            searches, key=lambda search: (len(search.masked), -len(search.prefix))
        ):
            if group and (
                len(search.masked) != len(group[0].masked)
                or (len(group) + 1) * (len(group[0].prefix) + search.request.positions)
                > micro_tokens
            ):
                _finish(model, group)
                work.advance(len(group))
                group = []
            group.append(search)
        if group:
            _finish(model, group)
    return [search.result() for search in searches]


def _finish(model: Backbone, searches: list[Search]) -> None:
    for _ in _run(model, searches):
        pass


def generate(
    model: Backbone,
    prefixes: Sequence[Sequence[int]],
    request: Request,
    *,
    micro_tokens: int = 8192,
) -> list[list[Hypothesis]]:
    """Return the `n_best` hypotheses of every prefix, in order, the best first.

    A prefix has ids from the soft prompt on. `micro_tokens` bounds the cached positions of one
    batch. Runs on the model's device and in its dtype, under the caller's autocast; which prefixes
    share a batch changes nothing beyond float rounding. A sample depends on the seed, the prefix
    and how many equal ones precede it.

    Raises ValueError for an empty prefix or if all tokens are banned, UserError for scores that are
    not finite.
    """
    return _carry_out(model, _after(prefixes, request, model), micro_tokens)


def infill(
    model: Backbone,
    texts: Sequence[tuple[Sequence[int], Sequence[int]]],
    request: Request,
    *,
    micro_tokens: int = 8192,
) -> list[list[Hypothesis]]:
    """Return the `n_best` ways to fill the blanks of every text, in order, the best first.

    A text is (ids from the soft prompt on, its masked positions in rising order); the ids at masked
    positions do not matter. A hypothesis has one token for each of them: `max_new_tokens` and
    `min_new_tokens` have no effect, and the request needs no `stop`. Otherwise as `generate`.

    Raises ValueError for a text without masked positions, or with one in the soft prompt or right
    after it.
    """
    given = []
    for number, (ids, positions) in enumerate(texts):
        masked = tuple(positions)
        if not masked or list(masked) != sorted({*masked}):
            raise ValueError(
                f"text {number} has the masked positions {masked}, expected some in rising order"
            )
        if masked[0] <= request.layout.shortest or masked[-1] >= len(ids):
            raise ValueError(
                f"text {number} of {len(ids)} ids has a masked position outside of "
                f"{request.layout.shortest + 1} to its end"
            )
        filled = {*masked}
        given.append(
            (tuple(0 if place in filled else token for place, token in enumerate(ids)), masked)
        )
    return _carry_out(model, _searches(given, request, model.config.shape.vocabulary), micro_tokens)


def stream(model: Backbone, prefix: Sequence[int], request: Request) -> Iterator[int]:
    """Yield the tokens that `generate` returns for one prefix, each when it is known.

    For greedy decoding and sampling; raises ValueError for more beams, whose best may still change.
    """
    if request.settings.beams > 1:
        raise ValueError(f"beams is {request.settings.beams}, but only one beam can be streamed")
    searches = _after([prefix], request, model)
    steps = _run(model, searches)
    return (beam.ids[-1] for _ in steps for beam in searches[0].beams)
