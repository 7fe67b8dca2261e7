"""How often units of text and pairs of neighbours occur in rows, counted by numbers and not by
strings: ten thousand rows of 200 characters in a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

Texts = Sequence[Sequence[Sequence[str]]]  # the units of each text of each row


class Counts:
    """The terms of known rows, in them and in other rows: units, and pairs of neighbours within a
    text, which in Chinese are many of the words.

    known, asked: float32 sparse (rows, terms). rows_with_each: int64 (terms,), of the known rows.
    There is always a term, if only one that never occurs.
    """

    def __init__(self, known: Texts, asked: Texts) -> None:
        import numpy as np

        units = dict.fromkeys(chain.from_iterable(chain.from_iterable(known)))
        index = {unit: number for number, unit in enumerate(units)}
        codes, rows = _coded(known, index)
        self._terms = np.unique(codes) if len(codes) else np.array([-1])
        self.known = self._matrix(codes, rows, len(known))
        self.asked = self._matrix(*_coded(asked, index), len(asked))
        self.rows_with_each = np.bincount(self.known.indices, minlength=len(self._terms))

    def _matrix(self, codes: Numbers, rows: Numbers, n: int) -> Any:
        import numpy as np
        from scipy.sparse import coo_matrix

        places = np.searchsorted(self._terms, codes).clip(max=len(self._terms) - 1)
        there = self._terms[places] == codes
        ones = np.ones(int(there.sum()), dtype=np.float32)
        shape = n, len(self._terms)
        return coo_matrix((ones, (rows[there], places[there])), shape=shape).tocsr()


def _coded(texts: Texts, index: Mapping[str, int]) -> tuple[Numbers, Numbers]:
    """The codes of all terms whose units are in `index`, and the row of each: unit u is u, of n
    units, the pair of u and v is n + n u + v."""
    import numpy as np

    n = len(index)
    parts = list(chain.from_iterable(texts))
    sizes = np.fromiter(map(len, parts), np.int64, len(parts))
    total = int(sizes.sum())
    get = index.get
    units = np.fromiter((get(u, -1) for u in chain.from_iterable(parts)), np.int64, total)
    part = np.repeat(np.arange(len(parts)), sizes)
    row = np.repeat(np.arange(len(texts)), np.fromiter(map(len, texts), np.int64, len(texts)))[part]
    known = units >= 0
    pairs = (part[1:] == part[:-1]) & known[1:] & known[:-1]
    codes = np.concatenate((units[known], n + n * units[:-1][pairs] + units[1:][pairs]))
    return codes, np.concatenate((row[known], row[:-1][pairs]))
