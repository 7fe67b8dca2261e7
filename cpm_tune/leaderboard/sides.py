"""Which finished runs are one row: by their folder, or by names in a results folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cpm_tune.common.folders import RECORD, is_complete
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.schema.record import AnyRecord, RunRecord, SystemRecord, read_any_record
from cpm_tune.schema.walk import record_files

# What has to be equal for two runs to have answered the same questions.
Key = tuple[str, int, str, int | None, bool]


@dataclass(frozen=True)
class Entry:
    """A finished run or system with its folder."""

    record: AnyRecord
    folder: Path

    def key(self, split: str) -> Key:
        """Task, version, the split's fingerprint, limit, and whether bad rows were skipped."""
        spec = self.record.spec
        data = spec.data
        sha = getattr(data, split) or ""
        return spec.task, spec.task_version, sha, data.limit, data.skip_bad_rows

    @cached_property
    def settings(self) -> Mapping[str, str]:
        """Everything but seed and data that decides the result, flat."""
        if isinstance(self.record, SystemRecord):
            return {}
        spec = self.record.spec
        parts = {"delta": spec.delta, "encode": spec.encoding.model_dump()}
        if spec.recipe is not None:
            parts["train"] = spec.recipe.model_dump()
        if spec.decoding is not None:
            parts["decode"] = spec.decoding.model_dump()
        flat = {f"{part}.{k}": str(v) for part, values in parts.items() for k, v in values.items()}
        return {
            **flat,
            "template": spec.template,
            "precision": spec.weights,
            "backbone": spec.backbone.sha256[:12],
            "init": spec.backbone.init,
            "train data": (spec.data.train or "-")[:12],
            "dev data": (spec.data.dev or "-")[:12],
        }


@dataclass(frozen=True)
class Side:
    """A row: what it is called, and its runs on all datasets."""

    name: str
    entries: tuple[Entry, ...]


def read_entries(folder: Path) -> tuple[list[Entry], list[str]]:
    """The finished runs and systems below a folder, and a sentence for each file left out."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such results folder.")
    found: dict[str, Entry] = {}
    warnings: list[str] = []
    for path in record_files(folder, warnings):
        try:
            record = read_any_record(path)
        except UserError as error:
            warnings.append(str(error))
            continue
        if record.status == "finished" and is_complete(path.parent):
            found.setdefault(record.run_id, Entry(record, path.parent))
    return list(found.values()), warnings


def find_side(selector: str, entries: Sequence[Entry]) -> Side:
    """The row that a selector names: a run's folder, a system, DELTA or BACKBONE:DELTA, each with
    @key=value,... where a delta was tuned in several ways. Raises UserError if there is none."""
    if (Path(selector) / RECORD).is_file():
        entry = Entry(read_any_record(Path(selector) / RECORD), Path(selector))
        if entry.record.status != "finished":
            raise UserError(
                f"{selector}: the run is {entry.record.status}, expected a finished one."
            )
        return Side(f"{entry.record.name} ({Path(selector).name})", (entry,))
    systems = tuple(
        e for e in entries if isinstance(e.record, SystemRecord) and e.record.name == selector
    )
    if systems:
        return Side(selector, systems)
    name, _, said = selector.partition("@")
    wanted = dict(_setting(selector, item) for item in said.split(",") if said)
    named = [e for e in entries if isinstance(e.record, RunRecord) and name in _names(e.record)]
    if not named:
        known = {n for e in entries if isinstance(e.record, RunRecord) for n in _names(e.record)}
        known |= {e.record.name for e in entries if isinstance(e.record, SystemRecord)}
        raise UserError(f"there is no run folder or row '{selector}'.{did_you_mean(name, known)}")
    keys = {key for entry in named for key in entry.settings}
    for key in wanted:
        if key not in keys:
            raise UserError(f"'{selector}': no setting '{key}'.{did_you_mean(key, keys)}")
    wanted = {"init": "checkpoint", **wanted}
    chosen = [e for e in named if all(e.settings.get(k) == v for k, v in wanted.items())]
    if not chosen:
        values = sorted(
            {f"{k}={e.settings.get(k)}" for e in named for k in wanted if k in e.settings}
        )
        raise UserError(f"'{selector}': no such run; there is {', '.join(values)}.")
    labels = {entry.record.name for entry in chosen}
    if len(labels) > 1:
        names = " and ".join(sorted(labels))
        raise UserError(f"'{selector}' is {names}; say BACKBONE:DELTA.")
    return Side(labels.pop() + (f" @{said}" if said else ""), tuple(chosen))


def _setting(selector: str, item: str) -> tuple[str, str]:
    key, equal, value = item.partition("=")
    if not equal:
        raise UserError(f"'{selector}': expected NAME@key=value,key=value.")
    return key.strip(), value.strip()


def _names(record: RunRecord) -> tuple[str, str]:
    return record.delta.name, f"{record.backbone.name}:{record.delta.name}"


def all_sides(entries: Sequence[Entry], split: str) -> list[Side]:
    """Every row of a results folder. A delta that was tuned in several ways on the same data is as
    many rows, told apart by the settings that differ there."""
    named: dict[str, list[Entry]] = {}
    for entry in entries:
        named.setdefault(entry.record.name, []).append(entry)
    sides = []
    for name, own in sorted(named.items()):
        apart = sorted(_apart(own, split))
        rows: dict[tuple[str, ...], list[Entry]] = {}
        for entry in own:
            rows.setdefault(tuple(entry.settings.get(k, "-") for k in apart), []).append(entry)
        for values, members in sorted(rows.items()):
            said = ",".join(f"{k}={v}" for k, v in zip(apart, values, strict=True))
            sides.append(Side(f"{name} @{said}" if said else name, tuple(members)))
    return sides


def _apart(entries: Sequence[Entry], split: str) -> set[str]:
    """The settings in which runs on the same data differ."""
    by_data: dict[Key, list[Entry]] = {}
    for entry in entries:
        by_data.setdefault(entry.key(split), []).append(entry)
    return {
        key
        for group in by_data.values()
        for key in {k for entry in group for k in entry.settings}
        if len({entry.settings.get(key) for entry in group}) > 1
    }


def seeds_of(side: Side, key: Key, split: str) -> list[Entry]:
    """A side's runs on one dataset: one for each seed. Raises UserError where they differ in more
    than the seed."""
    found = [entry for entry in side.entries if entry.key(split) == key]
    apart = sorted(_apart(found, split))
    if apart:
        values = sorted({entry.settings.get(apart[0], "-") for entry in found})
        raise UserError(
            f"{key[0]}: '{side.name}' is several settings, of {', '.join(apart[:4])}; choose one, "
            f"such as @{apart[0]}={values[0]}, or name the run's folder."
        )
    return sorted(found, key=lambda entry: entry.record.spec.seed)
