"""CUGE's hierarchy: the seven capabilities in the report's order, a dataset's place, and means."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from cpm_tune.errors import UserError
from cpm_tune.schema.spec import RunSpec
from cpm_tune.task import Task
from cpm_tune.task.registry import load_task, task_files
from cpm_tune.task.scoring import scoring_of

CAPABILITIES = (
    "word-sentence",
    "discourse",
    "information acquisition and question answering",
    "language generation",
    "conversational interaction",
    "multilingual",
    "mathematical reasoning",
)
UNKNOWN = "not known"


class Dataset(NamedTuple):
    """A dataset's place in CUGE's hierarchy."""

    capability: str
    kind: str
    suites: tuple[str, ...] = ()


def mean_over_hierarchy(places: Iterable[tuple[Dataset, float]]) -> float:
    """The mean of datasets' values: over datasets to kinds, over kinds to capabilities, over
    capabilities. There has to be one or more."""
    kinds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for dataset, value in places:
        kinds[dataset.capability, dataset.kind].append(value)
    capabilities: dict[str, list[float]] = defaultdict(list)
    for (capability, _), values in kinds.items():
        capabilities[capability].append(statistics.fmean(values))
    return statistics.fmean(map(statistics.fmean, capabilities.values()))


class Hierarchy:
    """Datasets by task name; a task file is read when it is needed."""

    def __init__(self, include: tuple[Path, ...] = ()) -> None:
        self._include = include
        self._files: Mapping[str, Path] = task_files(include)
        self._known: dict[str, Dataset] = {}
        self._tasks: dict[str, Task] = {}
        self.notes: list[str] = []

    def dataset(self, task: str) -> Dataset:
        """The place of a dataset; a task without a task file is under "not known", with a note."""
        if task not in self._known:
            self._known[task] = self._read(task)
        return self._known[task]

    def scoring(self, spec: RunSpec) -> str:
        """The rule of a run whose record does not name it, by its template; "" if the task file no
        longer has that."""
        self.dataset(spec.task)
        task = self._tasks.get(spec.task)
        template = task.template_of(spec.template, spec.template_sha256) if task else None
        return scoring_of(task, template, spec.scoring) if task and template else ""

    def _read(self, name: str) -> Dataset:
        if name not in self._files:
            self.notes.append(f"task '{name}': no task file; give it with --include PATH.")
            return Dataset(UNKNOWN, UNKNOWN, ())
        try:
            task = self._tasks[name] = load_task(name, self._include)
        except UserError as error:
            self.notes.append(str(error))
            return Dataset(UNKNOWN, UNKNOWN, ())
        return Dataset(task.capability, task.kind, task.suites)

    def unofficial_size(self, task: str, note: str) -> bool:
        """Whether a note of a record, "dev has 1,070 rows, officially …", still holds for the
        editions that are known now."""
        self.dataset(task)
        size = re.match(r"(train|dev|test) has ([\d,]+) rows, officially", note)
        if size is None or task not in self._tasks:
            return size is not None
        return bool(self._tasks[task].source.size_note(size[1], int(size[2].replace(",", ""))))

    def order(self, task: str) -> tuple[int, str, str, str]:
        """Sort key: capabilities as in the report, others after them, then kind and name."""
        place = self.dataset(task)
        known = place.capability in CAPABILITIES
        at = CAPABILITIES.index(place.capability) if known else len(CAPABILITIES)
        return at, place.capability, place.kind, task
