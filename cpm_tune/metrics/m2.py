"""Corrections scored as the M2 scorer does (Dahlmeier and Ng, NAACL 2012), by characters.

A corrected text does not say which edits it consists of. The scorer reads it in the way that agrees
best with the gold edits: among all paths through the lattice of the shortest edit scripts, with
neighbouring edits merged as long as at most two characters between them are unchanged, it takes the
one with the most gold edits, then the fewest steps, then the fewest edits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cpm_tune.metrics.base import Metric, pairs
from cpm_tune.metrics.families import OURS, Counts, micro

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Costs = NDArray[np.int64]
    Mask = NDArray[np.bool_]

BETA = 0.5
UNCHANGED = 2  # characters that a merged edit may keep
CELLS = 1_000_000  # of the lattice; longer texts are compared without their equal ends

# A path's cost: a gold edit is worth more than all steps, a step more than all edits.
STEP = 1 << 20
GOLD = 1 << 41
FAR = 1 << 62

Edit = tuple[int, int, str]
Golds = tuple[tuple[Edit, ...], ...]
Jump = tuple[int, int, int, int]


def metrics() -> Iterator[Metric]:
    """Yield F0.5, precision and recall of the M2 scorer."""
    definition = (
        f"{OURS}|M2 scorer (Dahlmeier and Ng 2012): edits that agree best with gold, up to "
        f"{UNCHANGED} characters unchanged inside one|characters, whitespace dropped|the annotator "
        "that raises F0.5 of the sentences so far most, then most hits, then fewest edits"
    )
    yield from micro("m2_", "correction", definition, _in_order, BETA)


def _in_order(predictions: Sequence[Any], targets: Sequence[Any]) -> list[Counts]:
    """The counts of each sentence against the annotator that the scorer chooses, which depends on
    the sentences before it. A correction that could not be parsed changes nothing."""
    rows: list[Counts] = []
    hits = proposed = to_find = 0
    for prediction, target in pairs(predictions, targets):
        source, golds = _tight(target)
        corrected = source if prediction is None else "".join(prediction.split())
        best: tuple[Any, Counts] | None = None
        for c, p, g in annotator_counts(source, corrected, golds):
            total = hits + c, proposed + p, to_find + g
            rank = (_f(*total), total[0], -(total[1] + BETA**2 * total[2]))
            if best is None or rank > best[0]:
                best = rank, (c, p, g)
        assert best is not None
        rows.append(best[1])
        hits, proposed, to_find = hits + best[1][0], proposed + best[1][1], to_find + best[1][2]
    return rows


def _f(hits: int, proposed: int, to_find: int) -> float:
    below = BETA**2 * to_find + proposed
    return (1 + BETA**2) * hits / below if below else 1.0


def _tight(target: Mapping[str, Any]) -> tuple[str, Golds]:
    """The source without whitespace and each annotator's edits of it, their places moved."""
    source: str = target["source"]
    place, n = [], 0
    for character in source:
        place.append(n)
        n += not character.isspace()
    place.append(n)
    golds = tuple(
        tuple((place[start], place[end], "".join(text.split())) for start, end, text in edits)
        for edits in target["edits"]
    )
    return "".join(source.split()), golds or ((),)


# Precision, recall and F are three metrics of one computation, which is slow.
@lru_cache(maxsize=2**14)
def annotator_counts(source: str, corrected: str, golds: Golds) -> list[Counts]:
    """Per annotator the hits, the edits in `corrected`, and the annotator's edits.

    The edits in `corrected` are those that agree best with the annotator's, so that their number
    differs between annotators.
    """
    if source == corrected:
        return [(0, 0, len(gold)) for gold in golds]
    at, end = 0, len(source)
    if (len(source) + 1) * (len(corrected) + 1) > CELLS:
        at, end, source, corrected = _without_equal_ends(source, corrected)
    if (len(source) + 1) * (len(corrected) + 1) > CELLS:  # hardly a correction: one edit
        edit = at, end, corrected
        return [(int(edit in gold), 1, len(gold)) for gold in golds]
    lattice = _Lattice(source, corrected)
    places = {edit: lattice.jumps(*edit, at) for gold in golds for edit in gold}
    costs = lattice.cheapest(
        [[jump for e in dict.fromkeys(g) for jump in places[e]] for g in golds]
    )
    counts = []
    for cost, gold in zip(costs, golds, strict=True):
        hits = -(cost // GOLD)
        counts.append((hits, hits + cost % GOLD % STEP, len(gold)))
    return counts


def _without_equal_ends(source: str, corrected: str) -> tuple[int, int, str, str]:
    """Where the part that differs begins and ends in the source, and that part of both texts."""
    shorter = min(len(source), len(corrected))
    start = next((i for i in range(shorter) if source[i] != corrected[i]), shorter)
    rest = shorter - start
    tail = next((i for i in range(rest) if source[-1 - i] != corrected[-1 - i]), rest)
    end = len(source) - tail
    return start, end, source[start:end], corrected[start : len(corrected) - tail]


class _Lattice:
    """The shortest edit scripts of two texts, a substitution costing 1 and costing 2.

    A node (i, j) stands after i characters of the source and j of the correction. Arrays hold a
    diagonal i + j per row and i + 1 per column, so that all nodes of a diagonal are computed at
    once: deleting comes from column i of the row before, inserting from column i + 1, keeping or
    replacing from column i of the row before that.
    """

    def __init__(self, source: str, corrected: str) -> None:
        import numpy as np

        self.corrected, self.n, self.m = corrected, len(source), len(corrected)
        n, m = self.n, self.m
        self.equal: Mask = np.zeros((n + m + 1, n + 2), dtype=bool)
        a, b = (
            np.frombuffer(t.encode("utf-32-le", "surrogatepass"), "<u4")
            for t in (source, corrected)
        )
        i, j = np.nonzero(a[:, None] == b[None, :])
        self.equal[i + j + 2, i + 2] = True

        # distance[d, k, i + 1]: k is the substitution's cost less 1.
        extra = np.array([[1], [2]])
        distance = np.full((n + m + 2, 2, n + 2), FAR, dtype=np.int64)
        distance[0, :, 1] = 0
        columns = np.arange(n + 1)
        replaced = np.full((2, n + 1), FAR)
        for d in range(1, n + m + 1):
            before = distance[d - 1]
            if d > 1:
                replaced = distance[d - 2, :, :-1] + np.where(self.equal[d, 1:], 0, extra)
            new = np.minimum(np.minimum(before[:, :-1], before[:, 1:]) + 1, replaced)
            inside = (columns <= d) & (columns >= d - m)
            distance[d, :, 1:] = np.where(inside, new, FAR)

        # Whether a step that ends in a node lies on a shortest script, from the last node back.
        self.deletes: Mask = np.zeros((n + m + 1, n + 2), dtype=bool)
        self.inserts: Mask = np.zeros_like(self.deletes)
        self.moves: Mask = np.zeros_like(self.deletes)
        on = np.zeros((n + m + 1, 2, n + 2), dtype=bool)
        on[n + m, :, n + 1] = True
        for d in range(n + m, 0, -1):
            here, before, reached = distance[d, :, 1:], distance[d - 1], on[d, :, 1:]
            deletes = reached & (here == before[:, :-1] + 1)
            inserts = reached & (here == before[:, 1:] + 1)
            on[d - 1, :, :-1] |= deletes
            on[d - 1, :, 1:] |= inserts
            self.deletes[d, 1:], self.inserts[d, 1:] = deletes.any(0), inserts.any(0)
            if d > 1:
                cost = np.where(self.equal[d, 1:], 0, extra)
                moves = reached & (here == distance[d - 2, :, :-1] + cost)
                on[d - 2, :, :-1] |= moves
                self.moves[d, 1:] = moves.any(0)
        self.nodes: Mask = on[:, 0] | on[:, 1]

    def jumps(self, start: int, end: int, text: str, at: int) -> list[Jump]:
        """Where the correction can be read as having this edit: (i, j) to (i, j) each."""
        start, end, length = start - at, end - at, len(text)
        if not 0 <= start <= end <= self.n or (start == end and not text):
            return []
        return [
            (start, j, end, j + length)
            for j in range(self.m - length + 1)
            if self.nodes[start + j, start + 1]
            and self.nodes[end + j + length, end + 1]
            and self.corrected.startswith(text, j)
            and self._kept(start, j, end, j + length) <= UNCHANGED
        ]

    def _kept(self, i0: int, j0: int, i1: int, j1: int) -> int:
        """The fewest characters that a way from one node to another leaves unchanged."""
        fewest = {(i0, j0): 0}
        for i in range(i0, i1 + 1):
            for j in range(j0, j1 + 1):
                d, column = i + j, i + 1
                ways = []
                if self.deletes[d, column] and (i - 1, j) in fewest:
                    ways.append(fewest[i - 1, j])
                if self.inserts[d, column] and (i, j - 1) in fewest:
                    ways.append(fewest[i, j - 1])
                if self.moves[d, column] and (i - 1, j - 1) in fewest:
                    ways.append(fewest[i - 1, j - 1] + bool(self.equal[d, column]))
                if ways and (i, j) != (i0, j0):
                    fewest[i, j] = min(ways)
        return fewest.get((i1, j1), UNCHANGED + 1)

    def cheapest(self, jumps: Sequence[Sequence[Jump]]) -> list[int]:
        """The cost of the best path per annotator, whose gold edits are `jumps`.

        An array's axes are the annotator; whether a gold insertion was used at this place of the
        source, which may happen once; outside of an edit, or in one that has kept 0, 1 or 2
        characters; and the column.
        """
        import numpy as np

        n, m = self.n, self.m
        landing: dict[int, list[tuple[int, Jump]]] = {}
        for annotator, each in enumerate(jumps):
            for jump in each:
                landing.setdefault(jump[2] + jump[3], []).append((annotator, jump))
        shape = len(jumps), 2, 2 + UNCHANGED, n + 2
        outside = np.full((n + m + 1, len(jumps), 2, n + 2), FAR, dtype=np.int64)
        before = two_before = np.full(shape, FAR, dtype=np.int64)
        for d in range(n + m + 1):
            here = np.full(shape, FAR, dtype=np.int64)
            if d == 0:
                here[:, 0, 0, 1] = 0
            edited = _edit(before)
            new = np.where(self.inserts[d], edited, FAR)
            deleted = np.where(self.deletes[d, 1:], edited.min(1)[:, :, :-1], FAR)
            new[:, 0, :, 1:] = np.minimum(new[:, 0, :, 1:], deleted)
            here = np.minimum(here, new)
            moved = two_before.min(1)[:, :, :-1]
            replaced = np.where(self.moves[d, 1:] & ~self.equal[d, 1:], _edit(moved), FAR)
            kept = np.full_like(replaced, FAR)
            kept[:, 0], kept[:, 2:] = moved[:, 0] + STEP, moved[:, 1:-1] + STEP
            kept = np.where(self.moves[d, 1:] & self.equal[d, 1:], kept, FAR)
            here[:, 0, :, 1:] = np.minimum(here[:, 0, :, 1:], np.minimum(replaced, kept))
            here[:, :, 0] = here.min(2)
            for annotator, (i0, j0, i1, _) in landing.get(d, ()):
                came = outside[i0 + j0, annotator, :, i0 + 1]
                inserted = int(i0 == i1)
                cost = (came[0] if inserted else came.min()) - GOLD
                cell = here[annotator, inserted, 0]
                cell[i1 + 1] = min(cell[i1 + 1], cost)
            outside[d] = here[:, :, 0]
            two_before, before = before, here
        return [int(cost) for cost in outside[n + m, :, :, n + 1].min(1)]


def _edit(costs: Costs) -> Costs:
    """The costs after one more edited character, which begins an edit or belongs to the last one;
    the second axis from the end says which."""
    import numpy as np

    new = costs + STEP
    new[..., 1, :] = np.minimum(new[..., 1, :], new[..., 0, :] + 1)
    new[..., 0, :] = FAR
    return new
