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

    Mask = NDArray[np.bool_]

BETA = 0.5
UNCHANGED = 2  # characters that a merged edit may keep
CELLS = 1_000_000  # of the lattice; longer texts are compared without their equal ends

# A path's cost: a gold edit is worth more than all steps, a step more than all edits.
STEP = 1 << 20
GOLD = 1 << 40
FAR = 1 << 60

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
    once: deleting comes from the column before in the row before, inserting from the same column,
    keeping and replacing from the column before in the row before that.
    """

    def __init__(self, source: str, corrected: str) -> None:
        import numpy as np

        self.corrected, self.n, self.m = corrected, len(source), len(corrected)
        rows, columns = self.n + self.m + 1, self.n + 2
        a, b = (np.array([ord(c) for c in text]) for text in (source, corrected))
        i, j = np.nonzero(a[:, None] == b[None, :])
        self.equal: Mask = np.zeros((rows, columns), dtype=bool)
        self.equal[i + j + 2, i + 2] = True

        # The second axis is the substitution's cost less 1.
        cost = np.where(self.equal[:, None], 0, np.array([[1], [2]]))
        distance = np.full((rows, 2, columns), FAR)
        distance[0, :, 1] = 0
        for d in range(1, rows):
            before = distance[d - 1]
            distance[d, :, 1:] = np.minimum(before[:, :-1], before[:, 1:]) + 1
            if d > 1:
                moved = distance[d - 2, :, :-1] + cost[d, :, 1:]
                np.minimum(distance[d, :, 1:], moved, out=distance[d, :, 1:])

        # Whether a step keeps a shortest script to its node, then whether it lies on one to the end
        deletes, inserts, moves = (np.zeros((rows, 2, columns), dtype=bool) for _ in range(3))
        deletes[1:, :, 1:] = distance[1:, :, 1:] == distance[:-1, :, :-1] + 1
        inserts[1:, :, 1:] = distance[1:, :, 1:] == distance[:-1, :, 1:] + 1
        moves[2:, :, 1:] = distance[2:, :, 1:] == distance[:-2, :, :-1] + cost[2:, :, 1:]
        on = np.zeros((rows, 2, columns), dtype=bool)
        on[-1, :, -1] = True
        for d in range(rows - 1, 0, -1):
            for steps in (deletes[d], inserts[d], moves[d]):
                steps &= on[d]
            on[d - 1, :, :-1] |= deletes[d, :, 1:]
            on[d - 1] |= inserts[d]
            if d > 1:
                on[d - 2, :, :-1] |= moves[d, :, 1:]
        self.nodes: Mask = on[:, 0] | on[:, 1]
        self.deletes: Mask = deletes[:, 0] | deletes[:, 1]
        self.moves: Mask = moves[:, 0] | moves[:, 1]
        self.inserts = inserts.sum(1)  # in how many of the two ways

    def jumps(self, start: int, end: int, text: str, at: int) -> list[Jump]:
        """Where the correction can be read as having this edit: (i, j) to (i, j) each."""
        start, end, length = start - at, end - at, len(text)
        if not 0 <= start <= end <= self.n:
            return []
        if start == end:
            return self._insertion(start, text)
        return [
            (start, j, end, j + length)
            for j in range(self.m - length + 1)
            if self.nodes[start + j, start + 1]
            and self.nodes[end + j + length, end + 1]
            and self.corrected.startswith(text, j)
            and self._kept(start, j, end, j + length) <= UNCHANGED
        ]

    def _insertion(self, place: int, text: str) -> list[Jump]:
        """The one insertion that the scorer takes for the gold one: of all that are possible at a
        place, in order, the first that fits from the left or the right, looking from each in turn.

        One of a single character that both costs of a substitution allow is there twice.
        """
        ways = [int(self.inserts[place + j, place + 1]) for j in range(self.m + 1)]
        reach = [0] * (self.m + 1)  # how many characters can be inserted after j
        for j in range(self.m - 1, -1, -1):
            reach[j] = reach[j + 1] + 1 if ways[j + 1] else 0
        size, length, fits = 0, len(text), list[tuple[int, int, int]]()
        for j in range(self.m):
            if 0 < length <= reach[j] and self.corrected.startswith(text, j):
                twice = ways[j + 1] - 1
                first = size + (length - 1 + twice if length > 1 else 0)
                fits.append((first, first + (twice if length == 1 else 0), j))
            size += reach[j] + ways[j + 1] - 1 if reach[j] else 0
        if not fits:
            return []
        seen = ((min(2 * a, 2 * (size - 1 - b) + 1), j) for a, b, j in fits)
        j = min(seen)[1]
        return [(place, j, place, j + length)]

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
        """The cost of the best path per annotator, whose gold edits are `jumps`."""
        import numpy as np

        rows, columns = self.nodes.shape
        landing: dict[int, list[tuple[int, Jump]]] = {}
        for annotator, each in enumerate(jumps):
            for jump in each:
                landing.setdefault(jump[2] + jump[3], []).append((annotator, jump))
        steps = self.deletes, self.inserts > 0, self.moves & ~self.equal, self.moves & self.equal
        deleting, inserting, replacing, keeping = (np.where(step, STEP, FAR) for step in steps)

        # Costs of a diagonal's nodes: outside of an edit, and in one that has kept 0, 1 or 2
        # characters; and those in an edit once one more character is edited, which may begin it.
        outside = np.full((rows, len(jumps), columns), FAR)
        shape = len(jumps), 1 + UNCHANGED, columns
        inside = inside_before = np.full(shape, FAR)
        edited = edited_before = np.full(shape, FAR)
        for d in range(rows):
            out, new = outside[d], np.full(shape, FAR)
            if d == 0:
                out[:, 1] = 0
            else:
                np.minimum(edited + inserting[d], FAR, out=new)
                part = new[:, :, 1:]
                np.minimum(part, edited[:, :, :-1] + deleting[d, 1:], out=part)
            if d > 1:
                np.minimum(part, edited_before[:, :, :-1] + replacing[d, 1:], out=part)
                kept = inside_before[:, :-1, :-1] + keeping[d, 1:]
                np.minimum(part[:, 1:], kept, out=part[:, 1:])
                np.minimum(out[:, 1:], outside[d - 2, :, :-1] + keeping[d, 1:], out=out[:, 1:])
            np.minimum(out, new.min(1), out=out)
            for annotator, (i0, j0, i1, _) in landing.get(d, ()):
                cost = outside[i0 + j0, annotator, i0 + 1] - GOLD
                out[annotator, i1 + 1] = min(out[annotator, i1 + 1], cost)
            inside_before, inside = inside, new
            edited_before, edited = edited, new.copy()
            np.minimum(edited[:, 0], out + 1, out=edited[:, 0])
        return [int(cost) for cost in outside[-1, :, -1]]
