"""Generates text in batches, behind prefixes or in their holes: greedy, beam search and sampling,
with a cache of keys and values.

A prefix is context, so its keys and values do not depend on what follows: it is encoded once. A
generated token sees the prefix, the tokens before it and itself: what training computes for an
answer behind its prompt. All beams of a prefix are queries of one row of the cache: they share the
prefix's keys, and each sees, of the generated ones, those of its own past. So nothing is copied
where beams change their parents.

A hole is filled as pre-training's infilling predicts a masked token: it sees all that is given, on
both sides, and the tokens that fill the holes before it. The hidden state before a token predicts
it; where that is a given one, it saw the given tokens alone.

How beams are ranked and when a search ends: `cpm_tune.decode.search`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import torch

from cpm_tune.backbone.model import CPMAnt
from cpm_tune.decode.rows import CachedRows, remaining
from cpm_tune.decode.search import Hypothesis, Request, Search, padded
from cpm_tune.decode.tokens import extensions
from cpm_tune.schema.spec import Decoding

__all__ = ["Hypothesis", "generate", "infill", "stream"]


@torch.inference_mode()
def _run(model: CPMAnt, searches: list[Search], request: Request) -> Iterator[None]:
    """Carry out searches as one batch; pauses after each step."""
    beams, last = request.settings.beams, request.settings.max_new_tokens - 1
    was_training = model.training
    model.eval()
    try:
        rows = CachedRows(model, searches, request)
        logits = rows.encode()
        for step in range(last + 1):
            found = extensions(logits, searches, request, step)
            for search, each in zip(searches, found, strict=True):
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
    finally:
        model.train(was_training)


def _check(request: Request, vocab: int) -> None:
    never = {*request.banned, *(request.stop if request.settings.min_new_tokens else ())}
    if len(never | request.not_first) >= vocab:
        raise ValueError(f"all {vocab} tokens are banned: nothing can be generated")


def _searches(prefixes: Sequence[Sequence[int]], request: Request, vocab: int) -> list[Search]:
    _check(request, vocab)
    met: Counter[tuple[int, ...]] = Counter()
    searches = []
    for number, ids in enumerate(prefixes):
        prefix = tuple(ids)
        if len(prefix) < (least := max(1, request.n_prompt)):
            raise ValueError(f"prefix {number} has {len(prefix)} ids, expected at least {least}")
        searches.append(Search(prefix, met[prefix], request))
        met[prefix] += 1
    return searches


def _groups(searches: Sequence[Search], slots: int, tokens: int) -> Iterator[list[Search]]:
    """Prefixes of like length together, the longest first: rows x (longest + slots) <= tokens."""
    group: list[Search] = []
    for search in sorted(searches, key=lambda search: -len(search.prefix)):
        if group and (len(group) + 1) * (len(group[0].prefix) + slots) > tokens:
            yield group
            group = []
        group.append(search)
    if group:
        yield group


def generate(
    model: CPMAnt,
    prefixes: Sequence[Sequence[int]],
    settings: Decoding,
    *,
    stop: Collection[int],
    segment: int,
    n_prompt: int,
    banned: Collection[int] = (),
    not_first: Collection[int] = (),
    micro_tokens: int = 8192,
) -> list[list[Hypothesis]]:
    """Return the `n_best` hypotheses of every prefix, in order, the best first.

    A prefix holds ids from the soft prompt on, its first `n_prompt` in the soft prompt's segment,
    the rest and what is generated in `segment`. `stop` tokens end a text, `banned` ones are never
    generated, nor `not_first` ones as its first. `micro_tokens` bounds the cache slots of one
    batch. Runs where and in the dtype that the model is, under the caller's autocast; which
    prefixes share a batch changes nothing beyond float rounding. A sample depends on the seed, the
    prefix and how many equal ones precede it.

    Raises ValueError for an empty prefix or if all tokens are banned, UserError for scores that are
    not numbers.
    """
    request = Request(
        settings, frozenset(stop), frozenset(banned), segment, n_prompt, frozenset(not_first)
    )
    searches = _searches(prefixes, request, model.config.vocab_size)
    _carry_out(model, searches, request, micro_tokens)
    return [search.result() for search in searches]


def _carry_out(
    model: CPMAnt, searches: Sequence[Search], request: Request, micro_tokens: int
) -> None:
    for group in _groups(searches, request.slots, micro_tokens):
        for _ in _run(model, group, request):
            pass


def infill(
    model: CPMAnt,
    texts: Sequence[tuple[Sequence[int], Sequence[int]]],
    settings: Decoding,
    *,
    segment: int,
    n_prompt: int,
    banned: Collection[int] = (),
    micro_tokens: int = 8192,
) -> list[list[Hypothesis]]:
    """Return the `n_best` ways to fill the holes of every text, in order, the best first.

    A text is (ids from the soft prompt on, positions of its holes in rising order); which ids stand
    in the holes does not matter. A hypothesis has one token for each hole: `max_new_tokens` and
    `min_new_tokens` have no say. Otherwise as `generate`.

    Raises ValueError for a text without holes, or with one in the soft prompt or right behind it.
    """
    request = Request(settings, frozenset(), frozenset(banned), segment, n_prompt)
    _check(request, model.config.vocab_size)
    met: Counter[tuple[tuple[int, ...], ...]] = Counter()
    by_size: dict[int, list[Search]] = {}
    searches = []
    for number, (given, positions) in enumerate(texts):
        holes = tuple(positions)
        filled = {*holes}
        ids = tuple(0 if place in filled else token for place, token in enumerate(given))
        if not holes or list(holes) != sorted({*holes}):
            raise ValueError(f"text {number} has the holes {holes}, expected some in rising order")
        if holes[0] <= n_prompt or holes[-1] >= len(ids):
            raise ValueError(
                f"text {number} of {len(ids)} ids has a hole outside of {n_prompt + 1} to its end"
            )
        own = settings.model_copy(update={"max_new_tokens": len(holes), "min_new_tokens": 0})
        search = Search(ids, met[ids, holes], replace(request, settings=own), holes)
        met[ids, holes] += 1
        by_size.setdefault(len(holes), []).append(search)
        searches.append(search)
    for group in by_size.values():
        _carry_out(model, group, group[0].request, micro_tokens)
    return [search.result() for search in searches]


def stream(
    model: CPMAnt,
    prefix: Sequence[int],
    settings: Decoding,
    *,
    stop: Collection[int],
    segment: int,
    n_prompt: int,
    banned: Collection[int] = (),
    not_first: Collection[int] = (),
) -> Iterator[int]:
    """Yield the tokens that `generate` returns for one prefix, each when it is known.

    For greedy decoding and sampling; raises ValueError for more beams, whose best may still change.
    """
    if settings.beams > 1:
        raise ValueError(f"beams is {settings.beams}, but only one beam can be streamed")
    request = Request(
        settings, frozenset(stop), frozenset(banned), segment, n_prompt, frozenset(not_first)
    )
    searches = _searches([prefix], request, model.config.vocab_size)
    steps = _run(model, searches, request)
    return (beam.ids[-1] for _ in steps for beam in searches[0].beams)
