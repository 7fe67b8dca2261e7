"""Rows against rows, dataset by dataset, on the predictions that their runs left.

Two runs are compared where task and version, the split's fingerprint, limit and skipped rows are
equal, so that they answered the same questions. Backbone, delta, template, recipe and training data
may differ: they are what is compared; other templates and training data are noted.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cpm_tune.common.folders import predictions_file
from cpm_tune.common.paths import file_sha256
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.sides import (
    Entry,
    Key,
    Side,
    all_sides,
    find_side,
    read_entries,
    seeds_of,
)
from cpm_tune.leaderboard.statistics import RESAMPLES, SEED, Difference, compare, holm, verdict
from cpm_tune.metrics import get_metric
from cpm_tune.systems.predictions import (
    Predictions,
    from_predictions,
    read_predictions,
)

LEVEL = 0.05
HOLM = f"Holm over all tests shown; win or loss where the adjusted p is below {LEVEL}, else a tie"


@dataclass(frozen=True)
class Options:
    """How rows are compared."""

    split: str = "test"
    metric: str | None = None
    test: str = "auto"
    resamples: int = RESAMPLES
    seed: int = SEED
    with_interval: bool = True


@dataclass(frozen=True)
class Line:
    """Side `a` against side `b` (their numbers) on one dataset."""

    a: int
    b: int
    task: str
    task_version: int
    test_sha256: str
    limit: int | None
    metric: str
    higher_is_better: bool
    found: Difference
    p_holm: float = 1.0
    verdict: str = "tie"


@dataclass(frozen=True)
class Report:
    """All pairs of sides on all datasets that they share."""

    sides: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    not_compared: tuple[str, ...]
    options: Options


def compare_rows(
    selectors: Sequence[str], results: Path, options: Options, *, every: bool = False
) -> tuple[Report, list[str]]:
    """Compare the selected rows pairwise (`every`: all rows of the results folder, if none is
    selected). Returns the report and a sentence for each file left out.

    Raises UserError where rows cannot be found, or share no dataset.
    """
    entries, warnings = read_entries(results) if results.is_dir() or every else ([], [])
    if every and not selectors:
        sides = all_sides(entries, options.split)
    else:
        sides = [find_side(selector, entries) for selector in selectors]
    if len(sides) < 2:
        raise UserError(f"{results}: {len(sides)} rows; comparing takes two.")
    names = [side.name for side in sides]
    if len(set(names)) < len(names):
        raise UserError(f"'{max(names, key=names.count)}' is compared with itself.")
    return _Comparison(sides, options).report(), warnings


class _Comparison:
    """Reads each file once, however many pairs need it."""

    def __init__(self, sides: Sequence[Side], options: Options) -> None:
        self._sides, self._options = sides, options
        self._read: dict[Path, Predictions] = {}
        self._notes: list[str] = []
        self._apart: list[str] = []

    def report(self) -> Report:
        lines = [
            line
            for a, b in itertools.combinations(range(len(self._sides)), 2)
            for line in self._pair(a, b)
        ]
        if not lines:
            raise UserError(
                "these rows cannot be compared: " + "; ".join(dict.fromkeys(self._apart)) + "."
            )
        adjusted = holm([line.found.p for line in lines])
        lines = [
            replace(
                line,
                p_holm=p,
                verdict=verdict(line.found.difference, p, line.higher_is_better, LEVEL),
            )
            for line, p in zip(lines, adjusted, strict=True)
        ]
        return Report(
            tuple(side.name for side in self._sides),
            tuple(lines),
            tuple(dict.fromkeys(self._notes)),
            tuple(dict.fromkeys(self._apart)),
            self._options,
        )

    def _pair(self, a: int, b: int) -> list[Line]:
        split = self._options.split
        first, second = ({e.key(split) for e in self._sides[side].entries} for side in (a, b))
        names = [self._sides[side].name for side in (a, b)]
        shared = sorted(first & second, key=str)
        for task in sorted({key[0] for key in first | second} - {key[0] for key in shared}):
            keys = [[k for k in side if k[0] == task] for side in (first, second)]
            if keys[0] and keys[1]:
                self._apart.append(f"{task}: {_what_differs(names, keys[0][0], keys[1][0], split)}")
            else:
                self._apart.append(f"{task}: only {names[0 if keys[0] else 1]} has it")
        found = (self._line(a, b, key) for key in shared)
        return [line for line in found if line is not None]

    def _line(self, a: int, b: int, key: Key) -> Line | None:
        options = self._options
        seeds = [seeds_of(self._sides[side], key, options.split) for side in (a, b)]
        every = [entry for side in seeds for entry in side]
        for entry in every:
            if options.split not in entry.record.scores:
                self._apart.append(f"{key[0]}: {entry.folder.name} has no {options.split} score")
                return None
        name = options.metric or every[0].record.ranks_by
        if options.metric is None and any(e.record.ranks_by != name for e in every):
            self._apart.append(f"{key[0]}: ranked by different metrics; say --metric")
            return None
        if not from_predictions(name):
            self._apart.append(f"{key[0]}: {name} cannot be computed from predictions")
            return None
        metric = get_metric(name)
        read = [[self._predictions(entry) for entry in side] for side in seeds]
        first = read[0][0]
        for entry, its in zip(every, (p for side in read for p in side), strict=True):
            if (its.ids, its.targets) != (first.ids, first.targets):
                self._apart.append(
                    f"{key[0]}: {entry.folder.name} has other examples or answers than "
                    f"{every[0].folder.name} although the file is the same; run one of them again"
                )
                return None
        one, other = ([p.predictions for p in side] for side in read)
        try:
            difference = compare(
                metric,
                one,
                other,
                first.targets,
                test=options.test,
                resamples=options.resamples,
                seed=options.seed,
                with_interval=options.with_interval,
            )
        except ValueError as error:
            raise UserError(f"{key[0]}: {error}; say --test auto.") from error
        except (TypeError, AttributeError, KeyError, IndexError) as error:
            raise UserError(
                f"{key[0]}: {name} does not take this task's predictions ({error})."
            ) from error
        self._note(key, name, seeds, difference)
        return Line(
            *(a, b, *key[:4]),
            metric=name,
            higher_is_better=metric.higher_is_better,
            found=difference,
        )

    def _predictions(self, entry: Entry) -> Predictions:
        path = entry.folder / predictions_file(self._options.split)
        if path not in self._read:
            read = read_predictions(path)
            if file_sha256(path) != entry.record.predictions.get(path.name):
                raise UserError(f"{path}: not the predictions of its record; the file was changed.")
            self._read[path] = read
        return self._read[path]

    def _note(
        self, key: Key, metric: str, seeds: Sequence[Sequence[Entry]], found: Difference
    ) -> None:
        task, every = key[0], [entry for side in seeds for entry in side]
        if every[0].record.spec.data.sample:
            self._notes.append(f"{task}: sample data, not comparable with real results")
        for what, said in (("template", "other templates"), ("train data", "other training data")):
            values = {e.settings[what] for e in every if what in e.settings}
            if len(values - {"-"}) > 1:
                self._notes.append(f"{task}: {said} ({', '.join(sorted(values))})")
        if found.seeds[0] != found.seeds[1] and max(found.seeds) > 1:
            self._notes.append(
                f"{task}: {found.seeds[0]} against {found.seeds[1]} seeds; the test then holds "
                "only about, as a mean over more seeds varies less"
            )
        if max(found.seeds) > 1:
            self._notes.append(_seeds_said(metric, found.form))
        for side, value in zip(seeds, (found.a, found.b), strict=True):
            recorded = [e.record.scores[self._options.split].get(metric) for e in side]
            if None not in recorded:
                mean = sum(r.value for r in recorded if r) / len(recorded)
                if abs(mean - value) > 1e-9 * max(1, abs(value)):
                    self._notes.append(
                        f"{task}: the records say {mean:.4f} where {metric} is now {value:.4f}; "
                        "see tune.py rescore"
                    )


def _seeds_said(metric: str, form: str) -> str:
    if form == "corpus":
        return (
            f"{metric} is a value of the corpus: computed for each seed and averaged, every seed "
            "with the same examples drawn or exchanged"
        )
    return f"{metric} is a mean over examples: each counts with its mean over the seeds"


def _what_differs(names: Sequence[str], a: Key, b: Key, split: str) -> str:
    what = ("task", "task version", f"{split} file", "limit", "skipped bad rows")
    said = [
        f"{name} {_value(x)} and {_value(y)}"
        for name, x, y in zip(what, a, b, strict=True)
        if x != y
    ]
    return f"{names[0]} and {names[1]} have {', '.join(said)}"


def _value(value: object) -> str:
    return (value[:12] if isinstance(value, str) else str(value)) if value else "none"


def matrix(report: Report) -> list[list[tuple[int, int, int] | None]]:
    """Wins, ties and losses of each row against each other over the datasets they share; None where
    there is none."""
    n = len(report.sides)
    table: list[list[tuple[int, int, int] | None]] = [[None] * n for _ in range(n)]
    for line in report.lines:
        won, lost = int(line.verdict == "win"), int(line.verdict == "loss")
        for i, j, w, x in ((line.a, line.b, won, lost), (line.b, line.a, lost, won)):
            before = table[i][j] or (0, 0, 0)
            table[i][j] = (before[0] + w, before[1] + 1 - w - x, before[2] + x)
    return table
