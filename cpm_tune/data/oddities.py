"""What is odd about the rows of a split, whatever kind of file they are from, as warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice, permutations
from typing import Any

from cpm_tune.data.files import checked_rows
from cpm_tune.data.readers import Layout
from cpm_tune.data.splits import find_splits, sample_folder
from cpm_tune.data.tables import TALL
from cpm_tune.errors import UserError
from cpm_tune.task import Generate, Options, Task

_SWAPPED = 2  # times as long as another column: columns that may be swapped
_FEWEST = 5  # rows whose lengths say something
_RARE = 100  # one row in so many
_IDS = 1_000_000  # rows whose ids are compared


class Oddities:
    """Counts over a split's rows: the length of every text column, texts of many lines, ids that
    occur again (among the first million), and equal options."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._n = 0
        self._lengths = Counter[str]()
        self._tall: dict[str, list[tuple[str, int]]] = {}
        self._ids: set[int] = set()  # hashes: a long split's ids take much memory
        self._repeated: list[str] = []
        self._alike: list[str] = []  # rows two of whose options are equal

    def note(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Count rows, given by column (the answers as `target`)."""
        self._n += len(columns["id"])
        for name in columns["id"] if self._n <= _IDS else ():
            if (key := hash(name)) in self._ids:
                self._repeated.append(name)
            self._ids.add(key)
        if isinstance(self._task.answer, Options):
            rows = zip(columns["id"], columns[self._task.answer.options], strict=True)
            self._alike += [name for name, options in rows if len({*options}) < len(options)]
        for name in (*self._task.shown, "target"):
            for number, value in enumerate(columns[name]):
                if isinstance(value, str):
                    self._lengths[name] += len(value)
                    if (n_lines := value.count("\n") + 1) > TALL:
                        self._tall.setdefault(name, []).append((columns["id"][number], n_lines))

    def warnings(self, layout: Layout) -> list[str]:
        """One sentence for each thing that is odd; `layout` is what the readers noted."""
        found = [*layout.warnings]
        if not layout.tall:
            found += map(self._tall_text, self._tall)
        for name, (count, first) in layout.blanks.items():
            rows = "row has" if count == 1 else "rows have"
            found.append(f"{count:,} {rows} an empty '{name}', first at {first}")
        if self._repeated:
            n = len(self._repeated)
            rows = "row has an id" if n == 1 else "rows have ids"
            found.append(
                f"{n:,} {rows} of an earlier row, the first '{self._repeated[0][:40]}'; "
                "predictions are matched with them by order"
            )
        if self._alike:
            rows = "row has" if len(self._alike) == 1 else "rows have"
            found.append(
                f"{len(self._alike):,} {rows} two equal options, first row {self._alike[0][:40]}"
            )
        return [*filter(None, found), *self._swapped(layout)]

    def _tall_text(self, name: str) -> str:
        (first, n_lines), *_ = tall = self._tall[name]
        if len(tall) * _RARE > max(self._n, _RARE):
            return ""
        column = self._task.answer.column if name == "target" else name
        return (
            f"'{column}' of row {first} has {n_lines:,} lines, and of {len(tall):,} of {self._n:,} "
            f"rows more than {TALL}; are several rows in one?"
        )

    def _swapped(self, layout: Layout) -> list[str]:
        """A warning if columns look swapped: in a table without header answers that are longer than
        texts, elsewhere lengths that are the other way around in the task's sample data."""
        answer, lengths = self._task.answer.column, self._lengths
        shown = max((lengths[name] for name in self._task.shown), default=0)
        if layout.headless and isinstance(self._task.answer, Generate):
            if not 0 < _SWAPPED * shown <= lengths["target"]:
                return []
            return [
                f"the answers ({answer}) are {lengths['target'] / shown:.1f} times as long as the "
                f"texts, in a table without header; if its columns are not "
                f"{', '.join(self._task.files.columns)}, write their names above them"
            ]
        steady = [name for name in lengths if name not in self._task.files.blank]
        pairs = [
            (short, long)
            for short, long in permutations(steady, 2)
            if 0 < _SWAPPED * lengths[short] <= lengths[long]
        ]
        usual = _usual_lengths(self._task) if pairs and self._n >= _FEWEST else {}
        for short, long in pairs:
            if 0 < _SWAPPED * usual.get(long, 0) <= usual.get(short, 0):
                ours, theirs = lengths[long] / lengths[short], usual[short] / usual[long]
                short, long = (answer if name == "target" else name for name in (short, long))
                return [
                    f"'{long}' is {ours:.1f} times as long as '{short}', which is {theirs:.1f} "
                    "times as long in the task's sample data; are these columns swapped?"
                ]
        return []


def _usual_lengths(task: Task) -> Counter[str]:
    """The lengths of the text columns in the first rows of the sample data, if there is any."""
    lengths = Counter[str]()
    try:
        file = find_splits(task, sample_folder(task), ("dev",), fingerprints=False)["dev"]
        for row in islice(checked_rows(task, file), 50):
            for name in (*task.shown, "target"):
                lengths[name] += len(row[name]) if isinstance(row[name], str) else 0
    except UserError:
        pass
    return lengths
