"""`train.rows`: a part of the training rows, drawn by the seed; a smaller part is in every larger.

Rows are put into one order, and a part is its beginning. Each label's rows (of tasks with options,
each option number's) are shuffled and spread evenly over that order from an offset that the seed
draws, so that every beginning has labels in the proportions of all rows, as nearly as whole rows
can be, and rare labels are not all at the middle (systematic sampling within strata, Cochran 1977).
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from dataclasses import replace

from cpm_tune.common.sizes import counted
from cpm_tune.data.store import Split
from cpm_tune.errors import UserError
from cpm_tune.task import Choice, Options, Task


def drawn(task: Task, train: Split, n: int | None, seed: int) -> Split:
    """The train split with `n` of its rows, in the order of the file (None: all of them).

    Raises UserError if it has fewer.
    """
    if n is None:
        return train
    if n > len(train):
        raise UserError(
            f"train.rows is {n:,}, but the train split has {counted(len(train), 'row')}; ask for "
            "no more than that, or omit it for all of them."
        )
    stratified = isinstance(task.answer, Choice | Options)
    labels: Sequence[Hashable] = train.rows.targets() if stratified else [None] * len(train)
    chosen = sorted(order(labels, seed)[:n])
    return replace(train, rows=train.rows.select(chosen))


def order(labels: Sequence[Hashable], seed: int) -> list[int]:
    """All row numbers, so that each beginning has each label in proportion; decided by labels and
    seed alone."""
    draw = random.Random(f"train.rows {seed}")
    numbers = list(range(len(labels)))
    draw.shuffle(numbers)
    by_label: dict[Hashable, list[int]] = {}
    for number in numbers:
        by_label.setdefault(labels[number], []).append(number)
    places = {
        number: (k + offset) / len(same)
        for same, offset in [(same, draw.random()) for same in by_label.values()]
        for k, number in enumerate(same)
    }
    return sorted(numbers, key=places.__getitem__)
