"""Keys and values of one layer in memory that is allocated once.

Joining them again for every token copies all of them, and takes as much new memory: pages that the
system clears first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Cached = tuple[Tensor, Tensor]  # keys and values (batch, heads, length, dim_head)


class KVCache:
    """One layer's keys and values at up to `capacity` positions, filled in order.

    The first `append` decides batch, heads, sizes of keys and of values, dtype and device.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.filled = capacity, 0
        self._parts: tuple[Tensor, ...] = ()  # keys, values: (batch, heads, capacity, dim_head)

    def append(self, key: Tensor, value: Tensor) -> Cached:
        """Add (batch, heads, new, dim_head) each; return views of all that was added so far.

        Raises ValueError for more than there is room for.
        """
        start, self.filled = self.filled, self.filled + key.shape[2]
        if self.filled > self.capacity:
            raise ValueError(f"{self.filled} positions, but room for {self.capacity}")
        if not self._parts:
            self._parts = tuple(
                new.new_empty(*new.shape[:2], self.capacity, new.shape[3]) for new in (key, value)
            )
        for part, new in zip(self._parts, (key, value), strict=True):
            part[:, :, start : self.filled] = new
        return self.all()

    def all(self) -> Cached:
        """Views of all that was added so far."""
        key, value = self._parts
        return key[:, :, : self.filled], value[:, :, : self.filled]

    def keep(self, n: int, to: Tensor, source: Tensor) -> None:
        """Row `to[i]` becomes what row `source[i]` was, then only the first `n` stay."""
        if not self._parts:
            return
        if len(to):
            for used in self.all():
                used[to] = used[source]
        self._parts = tuple(part[:n] for part in self._parts)

    def choose(self, rows: Tensor) -> None:
        """Row i becomes what row `rows[i]` was; there may be more than before."""
        if not self._parts:
            return
        made = self.all()
        self._parts = tuple(
            part.new_empty(len(rows), part.shape[1], self.capacity, part.shape[3])
            for part in self._parts
        )
        for part, used in zip(self._parts, made, strict=True):
            torch.index_select(used, 0, rows, out=part[:, :, : self.filled])


def moves(rows: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Of rows that stay, in their new order, those that move: where to and where from, as
    `KVCache.keep` takes them. Worked out here, not on a device."""
    moved = [pair for pair in enumerate(rows) if pair[0] != pair[1]]
    to, source = torch.tensor(moved, dtype=torch.int64).view(-1, 2).T.to(device)
    return to, source
