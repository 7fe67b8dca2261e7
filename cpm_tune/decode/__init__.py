"""Generates text in batches: greedy, beam search and sampling, with a cache of keys and values.

A prefix is context, so its keys and values do not depend on what follows: it is encoded once. A
generated token sees the prefix, the tokens before it and itself: what training computes for an
answer behind its prompt. All beams of a prefix are queries of one row of the cache: they share the
prefix's keys, and each sees, of the generated ones, those of its own past. So nothing is copied
where beams change their parents.

How beams are ranked and when a search ends: `cpm_tune.decode.search`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import torch

from cpm_tune.backbone.model import CPMAnt
from cpm_tune.decode.rows import CachedRows, remaining
from cpm_tune.decode.search import Hypothesis, Request, Search, padded
from cpm_tune.decode.tokens import extensions
from cpm_tune.spec import Decoding

__all__ = ["Hypothesis", "generate", "stream"]


@torch.inference_mode()
def _run(model: CPMAnt, searches: list[Search], request: Request) -> Iterator[None]:
    """Carry out searches as one batch; pauses after each step."""
    beams, last = request.settings.beams, request.settings.max_new_tokens - 1
    was_training = model.training
    model.eval()
    try:
        rows = CachedRows(model, [search.prefix for search in searches], request)
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


def _searches(prefixes: Sequence[Sequence[int]], request: Request, vocab: int) -> list[Search]:
    never = {*request.banned, *(request.stop if request.settings.min_new_tokens else ())}
    if len(never) >= vocab:
        raise ValueError(f"all {vocab} tokens are banned: nothing can be generated")
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
    micro_tokens: int = 8192,
) -> list[list[Hypothesis]]:
    """Return the `n_best` hypotheses of every prefix, in order, the best first.

    A prefix holds ids from the soft prompt on, its first `n_prompt` in the soft prompt's segment,
    the rest and what is generated in `segment`. `stop` tokens end a text, `banned` ones are never
    generated. `micro_tokens` bounds the cache slots of one batch. Runs where and in the dtype that
    the model is, under the caller's autocast; which prefixes share a batch changes nothing beyond
    float rounding. A sample depends on the seed, the prefix and how many equal ones precede it.

    Raises ValueError for an empty prefix or if all tokens are banned, UserError for scores that are
    not numbers.
    """
    request = Request(settings, frozenset(stop), frozenset(banned), segment, n_prompt)
    searches = _searches(prefixes, request, model.config.vocab_size)
    for group in _groups(searches, request.slots, micro_tokens):
        for _ in _run(model, group, request):
            pass
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
) -> Iterator[int]:
    """Yield the tokens that `generate` returns for one prefix, each when it is known.

    For greedy decoding and sampling; raises ValueError for more beams, whose best may still change.
    """
    if settings.beams > 1:
        raise ValueError(f"beams is {settings.beams}, but only one beam can be streamed")
    request = Request(settings, frozenset(stop), frozenset(banned), segment, n_prompt)
    searches = _searches([prefix], request, model.config.vocab_size)
    steps = _run(model, searches, request)
    return (beam.ids[-1] for _ in steps for beam in searches[0].beams)
