"""The systems that a comparison is about, selected by their folder or by names in a results folder.

A system is a delta on a backbone with its settings, or an outside system: the runs that one row of
the leaderboard has, on all datasets and seeds.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cpm_tune.common.folders import RECORD
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.leaderboard.columns import protocol
from cpm_tune.leaderboard.results import StoredRecord
from cpm_tune.leaderboard.settings import differing_settings, settings_of
from cpm_tune.schema.record import AnyRecord, RunRecord, SystemRecord, read_any_record
from cpm_tune.schema.walk import iter_records

# What has to be equal for two runs to have answered the same questions.
Key = tuple[str, int, str, int | None, bool]

# As selectors spelled them once, with fingerprints of 12 characters instead of 8.
_OLDER_KEYS = {"train data": "data.train", "dev data": "data.dev"}


@dataclass(frozen=True)
class Candidate(StoredRecord[AnyRecord]):
    """A finished run, or an outside system's predictions, that may be selected."""

    def key(self, split: str) -> Key:
        """Task, version, the split's fingerprint, limit, and whether bad rows were skipped."""
        spec = self.record.spec
        data = spec.data
        sha = getattr(data, split) or ""
        return spec.task, spec.task_version, sha, data.limit, data.skip_bad_rows

    @property
    def protocol(self) -> tuple[Hashable, ...]:
        """How prompts were made and answers chosen; () of a system."""
        return () if isinstance(self.record, SystemRecord) else protocol(self.record)

    @cached_property
    def settings(self) -> Mapping[str, str]:
        """Everything but the seed that decides the result, by dotted key; none of a system."""
        if isinstance(self.record, SystemRecord):
            return {}
        spec = self.record.spec
        return {
            **settings_of(spec),
            "backbone": spec.backbone.sha256[:12],
            "init": spec.backbone.init,
            "scoring": spec.scoring or "template",
            "shots": str(spec.shots),
            "shot_choice": spec.shot_choice,
            "chat_template": (spec.chat_template or "none")[:8],
            "numbers": str(self.record.numbers),
            "data.dev": (spec.data.seen[1] or "none")[:8],
        }


@dataclass(frozen=True)
class System:
    """What is compared: its name, and its runs on all datasets."""

    name: str
    runs: tuple[Candidate, ...]

    def seeds(self, key: Key, split: str) -> list[Candidate]:
        """The runs on one dataset, one per seed. Raises UserError if they differ in more than the
        seed."""
        runs = [run for run in self.runs if run.key(split) == key]
        differing = sorted(_differing(runs, split))
        if differing:
            values = sorted({run.settings.get(differing[0], "-") for run in runs})
            raise UserError(
                f"{key[0]}: '{self.name}' has runs of several settings, which differ in "
                f"{', '.join(differing[:4])}; choose one, such as @{differing[0]}={values[0]}, or "
                "give the run's folder."
            )
        return sorted(runs, key=lambda run: run.record.spec.seed)


def read_candidates(folder: Path) -> tuple[list[Candidate], list[str]]:
    """The finished runs and systems below a folder, each once, and one sentence per file left out.

    Raises UserError if there is no folder.
    """
    candidates: dict[str, Candidate] = {}
    warnings: list[str] = []
    for place, record in iter_records(folder, warnings):
        candidates.setdefault(record.run_id, Candidate(record, place))
    return list(candidates.values()), warnings


def select(selector: str, candidates: Sequence[Candidate]) -> System:
    """The system that a selector names: a run's folder, an outside system, DELTA or BACKBONE:DELTA,
    with @key=value,... if a delta was tuned in several ways. Raises UserError if there is none."""
    if (Path(selector) / RECORD).is_file():
        run = Candidate(read_any_record(Path(selector) / RECORD), Path(selector))
        if run.record.status != "finished":
            raise UserError(f"{selector}: the run is {run.record.status}, expected a finished one.")
        return System(f"{run.record.name} ({Path(selector).name})", (run,))
    outside = tuple(
        c for c in candidates if isinstance(c.record, SystemRecord) and c.record.name == selector
    )
    if outside:
        return System(selector, outside)
    name, _, conditions = selector.partition("@")
    wanted = dict(_setting(selector, item) for item in conditions.split(",") if conditions)
    named = [c for c in candidates if isinstance(c.record, RunRecord) and name in _names(c.record)]
    if not named:
        known = {n for c in candidates if isinstance(c.record, RunRecord) for n in _names(c.record)}
        known |= {c.record.name for c in candidates if isinstance(c.record, SystemRecord)}
        raise UserError(f"there is no run folder or row '{selector}'.{did_you_mean(name, known)}")
    keys = {key for run in named for key in run.settings}
    for key in wanted:
        if key not in keys:
            raise UserError(f"'{selector}': no setting '{key}'.{did_you_mean(key, keys)}")
    wanted = {"init": "checkpoint", **wanted}
    chosen = [run for run in named if all(run.settings.get(k, "-") == v for k, v in wanted.items())]
    if not chosen:
        values = sorted(
            {f"{k}={run.settings.get(k)}" for run in named for k in wanted if k in run.settings}
        )
        raise UserError(f"'{selector}': no such run; there is {', '.join(values)}.")
    names = {run.record.name for run in chosen}
    if len(names) > 1:
        raise UserError(
            f"'{selector}' is {' and '.join(sorted(names))}; choose one as BACKBONE:DELTA."
        )
    return System(names.pop() + (f" @{conditions}" if conditions else ""), tuple(chosen))


def _setting(selector: str, item: str) -> tuple[str, str]:
    key, equal, value = item.partition("=")
    if not equal:
        raise UserError(f"'{selector}': expected NAME@key=value,key=value.")
    key, value = key.strip(), value.strip()
    return (_OLDER_KEYS[key], value[:8]) if key in _OLDER_KEYS else (key, value)


def _names(record: RunRecord) -> tuple[str, str]:
    return record.delta.name, f"{record.backbone.name}:{record.delta.name}"


def all_systems(candidates: Sequence[Candidate], split: str) -> list[System]:
    """Every system of a results folder. A delta that was tuned in several ways on the same data is
    as many systems, named after the settings that differ there."""
    named: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        named.setdefault(candidate.record.name, []).append(candidate)
    systems = []
    for name, runs in sorted(named.items()):
        differing = sorted(_differing(runs, split))
        by_settings: dict[tuple[str, ...], list[Candidate]] = {}
        for run in runs:
            values = tuple(run.settings.get(key, "-") for key in differing)
            by_settings.setdefault(values, []).append(run)
        for values, members in sorted(by_settings.items()):
            conditions = ",".join(f"{k}={v}" for k, v in zip(differing, values, strict=True))
            systems.append(System(f"{name} @{conditions}" if conditions else name, tuple(members)))
    return systems


def _differing(runs: Sequence[Candidate], split: str) -> set[str]:
    """The settings in which runs on the same data differ."""
    by_data: dict[Key, list[Mapping[str, str]]] = {}
    for run in runs:
        by_data.setdefault(run.key(split), []).append(run.settings)
    return set().union(*map(differing_settings, by_data.values()))
