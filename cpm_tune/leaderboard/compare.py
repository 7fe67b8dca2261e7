"""Compares systems pairwise, dataset by dataset, on the predictions that their runs left.

Two runs are compared if task and version, the split's fingerprint, limit and skipped rows are
equal, so that they answered the same questions. Backbone, delta, template, recipe and training data
may differ: they are what is compared; different prompts, scoring rules and training data are noted.
Where all systems of a folder are compared, those pairs are left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cpm_tune.common.program import program
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.means import folds_of
from cpm_tune.leaderboard.selection import (
    Candidate,
    Key,
    System,
    all_systems,
    read_candidates,
    select,
)
from cpm_tune.leaderboard.statistics import (
    RESAMPLES,
    SEED,
    ComparisonResult,
    compare,
    holm,
    verdict,
)
from cpm_tune.metrics import get_metric
from cpm_tune.systems.predictions import (
    FOREIGN,
    Predictions,
    from_predictions,
    recorded_predictions,
)

LEVEL = 0.05
# Settings in which systems that are compared may differ, each as a note calls it.
_NOTED = {
    "template": "templates",
    "scoring": "scoring rules",
    "shots": "numbers of shots",
    "chat_template": "chat templates",
    "numbers": "versions of the package's numbers",
    "data.train": "training data",
}
HOLM = f"Holm over all tests shown; win or loss if the adjusted p is below {LEVEL}, else a tie"


@dataclass(frozen=True)
class Method:
    """How systems are compared. `metric` None: the one that ranks; `test` is one of TESTS."""

    split: str = "test"
    metric: str | None = None
    test: str = "auto"
    resamples: int = RESAMPLES
    seed: int = SEED
    with_interval: bool = True


@dataclass(frozen=True)
class Comparison:
    """System `a` against system `b` (their numbers) on one dataset."""

    a: int
    b: int
    task: str
    task_version: int
    test_sha256: str
    limit: int | None
    metric: str
    higher_is_better: bool
    result: ComparisonResult
    p_holm: float = 1.0
    verdict: str = "tie"


@dataclass(frozen=True)
class Report:
    """All pairs of systems on all datasets that they share."""

    systems: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    not_compared: tuple[str, ...]
    method: Method


def compare_rows(
    selectors: Sequence[str], results: Path, method: Method, *, every: bool = False
) -> tuple[Report, list[str]]:
    """Compare the selected systems pairwise (`every`: all of the results folder, if none is
    selected). Returns the report and one sentence per file left out.

    Raises UserError if systems cannot be found, or share no dataset.
    """
    candidates, warnings = read_candidates(results) if results.is_dir() or every else ([], [])
    if every and not selectors:
        systems = all_systems(candidates, method.split)
    else:
        systems = [select(selector, candidates) for selector in selectors]
    if len(systems) < 2:
        raise UserError(f"{results}: {len(systems)} rows; comparing takes two.")
    names = [system.name for system in systems]
    if len(set(names)) < len(names):
        raise UserError(f"'{max(names, key=names.count)}' is compared with itself.")
    return _Comparing(systems, method, same_protocol=every and not selectors).report(), warnings


class _NotComparableError(Exception):
    """Why two systems are not compared on a dataset."""


class _Comparing:
    """Reads each file once, however many pairs need it."""

    def __init__(
        self, systems: Sequence[System], method: Method, *, same_protocol: bool = False
    ) -> None:
        self._systems, self._method, self._same_protocol = systems, method, same_protocol
        self._read: dict[Path, Predictions] = {}
        self._notes: list[str] = []
        self._not_compared: list[str] = []

    def report(self) -> Report:
        comparisons = [
            comparison
            for a, b in itertools.combinations(range(len(self._systems)), 2)
            for comparison in self._pair(a, b)
        ]
        reasons = tuple(dict.fromkeys(self._not_compared))
        if not comparisons:
            raise UserError(f"these rows cannot be compared: {'; '.join(reasons)}.")
        adjusted = holm([comparison.result.p for comparison in comparisons])
        comparisons = [
            replace(c, p_holm=p, verdict=verdict(c.result.difference, p, c.higher_is_better, LEVEL))
            for c, p in zip(comparisons, adjusted, strict=True)
        ]
        names = tuple(system.name for system in self._systems)
        notes = tuple(dict.fromkeys(self._notes))
        return Report(names, tuple(comparisons), notes, reasons, self._method)

    def _pair(self, a: int, b: int) -> Iterator[Comparison]:
        split = self._method.split
        pair = self._systems[a], self._systems[b]
        names = [system.name for system in pair]
        first, second = ({run.key(split) for run in system.runs} for system in pair)
        shared = sorted(first & second, key=str)
        for task in sorted({key[0] for key in first | second} - {key[0] for key in shared}):
            keys = [[key for key in of if key[0] == task] for of in (first, second)]
            if keys[0] and keys[1]:
                reason = _what_differs(names, keys[0][0], keys[1][0], split)
            else:
                reason = f"only {names[0 if keys[0] else 1]} has it"
            self._not_compared.append(f"{task}: {reason}")
        for key in shared:
            try:
                yield self._compare(a, b, key)
            except _NotComparableError as reason:
                self._not_compared.append(f"{key[0]}: {reason}")

    def _compare(self, a: int, b: int, key: Key) -> Comparison:
        method, task = self._method, key[0]
        seeds = [self._systems[number].seeds(key, method.split) for number in (a, b)]
        runs = [run for of in seeds for run in of]
        if self._same_protocol and len({run.protocol for run in runs if run.protocol}) > 1:
            raise _NotComparableError(
                f"{self._systems[a].name} and {self._systems[b].name} differ in template or "
                "scoring; name the two to compare them all the same"
            )
        metric = get_metric(self._metric(runs))
        read = {run.folder: self._predictions(run) for run in runs}
        first = read[runs[0].folder]
        for folder, split in read.items():
            if (split.ids, split.targets) != (first.ids, first.targets):
                raise _NotComparableError(
                    f"{folder.name} has other examples or answers than {runs[0].folder.name} "
                    "although the file is the same; run one of them again"
                )
        try:
            result = compare(
                metric,
                [read[run.folder].predictions for run in seeds[0]],
                [read[run.folder].predictions for run in seeds[1]],
                first.targets,
                test=method.test,
                resamples=method.resamples,
                seed=method.seed,
                with_interval=method.with_interval,
            )
        except ValueError as error:
            raise UserError(f"{task}: {error}; give --test auto.") from error
        except FOREIGN as error:
            raise UserError(
                f"{task}: {metric.name} does not take this task's predictions ({error})."
            ) from error
        self._note(key, metric.name, seeds, result)
        return Comparison(a, b, *key[:4], metric.name, metric.higher_is_better, result)

    def _metric(self, runs: Sequence[Candidate]) -> str:
        """The metric to compare runs by."""
        split = self._method.split
        name = self._method.metric or runs[0].record.ranks_by
        for run in runs:
            if split not in run.record.scores:
                raise _NotComparableError(f"{run.folder.name} has no {split} score")
        if self._method.metric is None and any(run.record.ranks_by != name for run in runs):
            raise _NotComparableError("ranked by different metrics; give --metric")
        if not from_predictions(name):
            raise _NotComparableError(f"{name} cannot be computed from predictions")
        return name

    def _predictions(self, run: Candidate) -> Predictions:
        if run.folder not in self._read:
            split = self._method.split
            self._read[run.folder] = recorded_predictions(run.folder, run.record, split)
        return self._read[run.folder]

    def _note(
        self, key: Key, metric: str, seeds: Sequence[Sequence[Candidate]], result: ComparisonResult
    ) -> None:
        task, runs = key[0], [run for of in seeds for run in of]
        if runs[0].record.spec.data.sample:
            self._notes.append(f"{task}: sample data, not comparable with real results")
        for setting, note in _NOTED.items():
            values = {run.settings[setting] for run in runs if setting in run.settings}
            if len(values - ({"none"} if setting == "data.train" else set())) > 1:
                self._notes.append(f"{task}: different {note} ({', '.join(sorted(values))})")
        folds = [folds_of(run.record for run in of) for of in seeds]
        if folds[0] != folds[1]:
            a, b = (", ".join(map(str, sorted(of))) or "none" for of in folds)
            self._notes.append(f"{task}: different folds ({a} against {b})")
        many = "runs" if any(folds) else "seeds"
        if result.seeds[0] != result.seeds[1] and max(result.seeds) > 1:
            self._notes.append(
                f"{task}: {result.seeds[0]} against {result.seeds[1]} {many}; the test is then "
                f"only approximate, as a mean over more {many} varies less"
            )
        if max(result.seeds) > 1:
            self._notes.append(_how_seeds_count(metric, result.form))
        for of, value in zip(seeds, (result.a, result.b), strict=True):
            recorded = [run.record.scores[self._method.split].get(metric) for run in of]
            if None not in recorded:
                mean = sum(score.value for score in recorded if score) / len(recorded)
                if abs(mean - value) > 1e-9 * max(1, abs(value)):
                    self._notes.append(
                        f"{task}: the records have {mean:.4f}, but {metric} is now {value:.4f}; "
                        f"see {program()} rescore"
                    )


def _how_seeds_count(metric: str, form: str) -> str:
    if form == "corpus":
        return (
            f"{metric} is a value of the corpus: computed for each seed and averaged, every seed "
            "with the same examples drawn or exchanged"
        )
    return f"{metric} is a mean over examples: each counts with its mean over the seeds"


def _what_differs(names: Sequence[str], a: Key, b: Key, split: str) -> str:
    what = ("task", "task version", f"{split} file", "limit", "skipped bad rows")
    differing = [
        f"{name} {_value(x)} and {_value(y)}"
        for name, x, y in zip(what, a, b, strict=True)
        if x != y
    ]
    return f"{names[0]} and {names[1]} have {', '.join(differing)}"


def _value(value: object) -> str:
    return (value[:12] if isinstance(value, str) else str(value)) if value else "none"


def matrix(report: Report) -> list[list[tuple[int, int, int] | None]]:
    """Wins, ties and losses of each system against each other over the datasets they share; None if
    there is none."""
    n = len(report.systems)
    table: list[list[tuple[int, int, int] | None]] = [[None] * n for _ in range(n)]
    for c in report.comparisons:
        won, lost = int(c.verdict == "win"), int(c.verdict == "loss")
        for i, j, w, x in ((c.a, c.b, won, lost), (c.b, c.a, lost, won)):
            before = table[i][j] or (0, 0, 0)
            table[i][j] = (before[0] + w, before[1] + 1 - w - x, before[2] + x)
    return table
