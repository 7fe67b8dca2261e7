"""Whether the names and shapes of a checkpoint are those that its config asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from cpm_tune.errors import UserError


def check_fit(
    where: Path, given: Mapping[str, Sequence[int]], expected: Mapping[str, Sequence[int]]
) -> None:
    """Raise UserError with the difference of two sets of names and shapes, if there is one.

    Names that differ only in the number of the layer are listed as one, with the layers' range.
    """
    wrong = [(f"missing {name}", "") for name in expected if name not in given]
    wrong += [(f"unexpected {name}", "") for name in given if name not in expected]
    wrong += [
        (name, f" has shape {tuple(given[name])}, expected {tuple(shape)}")
        for name, shape in expected.items()
        if name in given and tuple(given[name]) != tuple(shape)
    ]
    if not wrong:
        return
    groups: dict[tuple[str, str], list[int]] = {}
    for name, about in wrong:
        layer = re.search(r"(?<=\blayers\.)\d+", name)
        key = (re.sub(r"(?<=\blayers\.)\d+", "*", name), about)
        groups.setdefault(key, []).extend([int(layer[0])] if layer else [])
    lines = [name.replace("*", _ranges(layers)) + about for (name, about), layers in groups.items()]
    more = f" and {len(lines) - 8} more" if len(lines) > 8 else ""
    raise UserError(
        f"{where}: the checkpoint does not fit its config: {'; '.join(lines[:8])}{more}."
    )


def _ranges(numbers: Sequence[int]) -> str:
    """[0, 1, 2, 5] -> "[0-2,5]"; [3] -> "3"."""
    rising = groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])
    runs = [[number for _, number in run] for _, run in rising]
    text = ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return text if len(numbers) == 1 else f"[{text}]"
