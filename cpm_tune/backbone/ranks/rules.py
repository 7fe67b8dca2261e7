"""How a tensor is divided over model-parallel ranks, and made whole again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cpm_tune.errors import UserError


@dataclass(frozen=True)
class Rule:
    """`dimension` is divided; None: every rank has a copy. Rows of several `kinds`, such as
    queries, keys and values, are divided each for itself: a rank has its part of each in turn."""

    dimension: int | None
    kinds: int = 1

    def part(self, shape: Sequence[int], n: int) -> tuple[int, ...] | None:
        """The shape of a rank's part of `n`; None if it cannot be divided so."""
        sizes = list(shape)
        if self.dimension is not None:
            if sizes[self.dimension] % (self.kinds * n):
                return None
            sizes[self.dimension] //= n
        return tuple(sizes)


SAME, ROWS, COLUMNS = Rule(None), Rule(0), Rule(1)
HALVES, THIRDS = Rule(0, 2), Rule(0, 3)


def merge(rule: Rule, parts: Sequence[Tensor], where: str = "", name: str = "") -> Tensor:
    """All ranks' parts of a tensor as one. Raises UserError if what should be the same is not."""
    if rule.dimension is None:
        if any(not torch.equal(part, parts[0]) for part in parts):
            raise UserError(
                f"{where}: {name} differs between the ranks, which have copies of it; the files "
                "are not of one checkpoint."
            )
        return parts[0]
    kinds = [part.chunk(rule.kinds, rule.dimension) for part in parts]
    of_kind = [part[kind] for kind in range(rule.kinds) for part in kinds]
    return of_kind[0] if len(of_kind) == 1 else torch.cat(of_kind, rule.dimension)


def divide(rule: Rule, whole: Tensor, n: int) -> list[Tensor]:
    """The parts of `n` ranks."""
    if rule.dimension is None:
        return [whole] * n
    kinds = [kind.chunk(n, rule.dimension) for kind in whole.chunk(rule.kinds, rule.dimension)]
    return [torch.cat([kind[rank] for kind in kinds], rule.dimension) for rank in range(n)]
