"""The search over one prefix: which hypotheses stay live and which are finished. No tensors.

A step extends every live beam by every token and sorts the extensions by their sums of
log-probabilities; equal ones by earlier beam, then by lower token id. Of the best `beams`, those
that end with a stop token become finished hypotheses; of the others the best `beams` stay live.
With one beam (greedy, sampling) the first stop token ends the search.

A hypothesis' score is that sum / length^length_penalty, the length counting the stop token. After
`max_new_tokens` steps the live beams count as hypotheses, unfinished, and the `n_best` by score are
returned; of equal ones the earlier. The search ends sooner only if no live beam can change them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from cpm_tune.backbone.protocol import Layout
from cpm_tune.schema.spec import Decoding

NEVER = float("-inf")
Extension = tuple[int, float, float]  # token, log-probability that ranks, the model's own
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A generated text. `ids` are without the stop token that `finished` it.

    `log_prob` is what the model gives ids and stop token, before penalties, bans and temperature;
    `score` is what hypotheses are ranked by (with a repetition penalty: of penalised logits).
    """

    ids: tuple[int, ...]
    log_prob: float
    score: float
    finished: bool


@dataclass(frozen=True, slots=True)
class Beam:
    """A live hypothesis: `search` sums the log-probabilities that rank, `log_prob` the model's."""

    ids: tuple[int, ...] = ()
    search: float = 0.0
    log_prob: float = 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """What is the same for all prefixes of a call.

    `layout` is that of the prefixes. `stop` tokens end a text; `banned` ones are never generated,
    `not_first` ones not as the first. With `ends` and `lengths` a text is one part for each of
    them, of so many tokens, which that token ends: the others are banned until then.
    """

    settings: Decoding
    layout: Layout
    stop: frozenset[int] = frozenset()
    banned: frozenset[int] = frozenset()
    not_first: frozenset[int] = frozenset()
    ends: tuple[int, ...] = ()
    lengths: tuple[range, ...] = ()

    @property
    def positions(self) -> int:
        """Cached positions of a prefix's generated tokens; the last token is never fed back."""
        return self.settings.beams * (self.settings.max_new_tokens - 1)

    def in_parts(self, ends: tuple[int, ...], lengths: tuple[range, ...]) -> Request:
        """The request for texts of parts; the last of `ends` stops."""
        most = sum(length[-1] for length in lengths) + len(ends)
        settings = self.settings.model_copy(update={"max_new_tokens": most, "min_new_tokens": 0})
        stop = frozenset(ends[-1:])
        return replace(self, settings=settings, stop=stop, ends=ends, lengths=lengths)

    def filling(self, n: int) -> Request:
        """The request for a text with `n` masked positions (0: that continues a prefix)."""
        if not n:
            return self
        exact = {"max_new_tokens": n, "min_new_tokens": 0}
        return replace(self, settings=self.settings.model_copy(update=exact))


def parts_of(ids: tuple[int, ...], ends: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The parts of a text that these tokens end, the last of them perhaps unfinished."""
    parts: list[tuple[int, ...]] = []
    for end in ends:
        cut = ids.index(end) if end in ids else len(ids)
        parts.append(ids[:cut])
        ids = ids[cut + 1 :]
    return parts


class Search:
    """The beams of one prefix; `parents` says which of the step before each of them extends."""

    def __init__(
        self,
        prefix: tuple[int, ...],
        occurrence: int,
        request: Request,
        masked: tuple[int, ...] = (),
    ) -> None:
        """`occurrence` counts equal prefixes: each draws its own sample. `masked` are positions of
        the prefix that are to be filled, in order; without any the prefix is continued."""
        self.prefix, self.request, self.masked = prefix, request, masked
        self.beams, self.parents = [Beam()], [0]
        self.ended: list[Hypothesis] = []
        if request.settings.sample:
            generator = np.random.default_rng([request.settings.seed, occurrence, *prefix, *masked])
            self.uniform = generator.random(request.settings.max_new_tokens)

    def advance(self, extensions: Sequence[Sequence[Extension]]) -> None:
        """Take a step, given every beam's best extensions (those that can matter), best first."""
        width = self.request.settings.beams
        extended = [
            (beam.search + search, beam.log_prob + log_prob, parent, token)
            for parent, (beam, each) in enumerate(zip(self.beams, extensions, strict=True))
            for token, search, log_prob in each
            if search > NEVER
        ]
        extended.sort(key=lambda extension: -extension[0])
        before, self.beams, self.parents = self.beams, [], []
        for rank, (search, log_prob, parent, token) in enumerate(extended):
            if token not in self.request.stop:
                self.beams.append(Beam((*before[parent].ids, token), search, log_prob))
                self.parents.append(parent)
            elif rank < width:
                self._end(Beam(before[parent].ids, search, log_prob), finished=True)
            if len(self.beams) == width:
                break

    def _end(self, beam: Beam, *, finished: bool) -> None:
        length = len(beam.ids) + finished
        score = beam.search / length**self.request.settings.length_penalty
        self.ended.append(Hypothesis(beam.ids, beam.log_prob, score, finished))
        self.ended.sort(key=lambda hypothesis: -hypothesis.score)

    @property
    def decided(self) -> bool:
        """Whether no live beam can change the result: sums only fall, and greater lengths help."""
        settings = self.request.settings
        if not self.beams:
            return True
        if len(self.ended) < settings.n_best:
            return False
        reachable = self.beams[0].search / settings.max_new_tokens**settings.length_penalty
        return reachable <= self.ended[settings.n_best - 1].score

    def result(self) -> list[Hypothesis]:
        """The best hypotheses; fewer than `n_best` only if there are no more texts."""
        for beam in () if self.decided else self.beams:
            self._end(beam, finished=False)
        return self.ended[: self.request.settings.n_best]


def padded(values: list[T], n: int) -> list[T]:
    """As many as `n`: early in a search, or with few tokens to choose, fewer beams live."""
    return values + values[:1] * (n - len(values))


def remaining(alive: Sequence[bool]) -> list[int]:
    """Numbers of the rows that are alive, each gap filled by the last one, so that few move."""
    rows = list(range(len(alive)))
    for row in reversed(range(len(alive))):
        if not alive[row]:
            last = rows.pop()
            if row < len(rows):
                rows[row] = last
    return rows
