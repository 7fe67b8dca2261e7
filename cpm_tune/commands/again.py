"""A run's record as the options of a command: `--config run.json` runs it again."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from cpm_tune.backbone.bundled import NAMES
from cpm_tune.common.folders import CHAT, RECORD
from cpm_tune.common.program import program
from cpm_tune.common.reading import read_regular
from cpm_tune.common.texts import shortened
from cpm_tune.data.splits import sample_folder
from cpm_tune.errors import UserError
from cpm_tune.planning.recorded import recorded_folder
from cpm_tune.schema.record import RunRecord, read_record
from cpm_tune.schema.spec import Execution, RunSpec, flattened
from cpm_tune.task.registry import load_preset, load_task, preset_files

_MOST = 2**28  # bytes of predictions that are kept to be compared


def options_of(
    path: Path, include: tuple[Path, ...], given: Collection[str], searching: bool = False
) -> dict[str, Any]:
    """The options and settings of the run that a record describes, as a --config file has them;
    `given` are those of the command line. `searching`: of the search that found the run, if one
    did, without the settings that it found.

    Raises UserError if data or backbone are not where the run found them, and not given.
    """
    record = read_record(path)
    spec = record.spec
    if spec.backbone.init == "random":
        raise UserError(
            f"{path}: the record of a random-backbone control; give that of its run, and --control "
            "random-backbone."
        )
    if spec.delta_scale != 1:
        raise UserError(
            f"{path}: the record of a run scaled by {spec.delta_scale:g}; give that of its run "
            f"before, and scale that with: {program()} scale RUN --by FACTOR."
        )
    options: dict[str, Any] = {
        "task": spec.task,
        "delta": _preset(record),
        "seed": spec.seed,
        "template": spec.template,
        "scoring": spec.scoring,
        "precision": spec.precision,
        "quantize": spec.backbone.quantize,
        "limit": spec.data.limit,
        "skip_bad_rows": spec.data.skip_bad_rows,
        "shots": spec.shots,
        "shot_choice": spec.shot_choice,
        "chat_template": str(path.parent / CHAT) if spec.chat_template else None,
    }
    if "backbone" not in given:
        options["backbone"] = _backbone(record, path)
    if "data" not in given:
        task = load_task(spec.task, include)
        folder = recorded_folder(task, record)
        options["data"] = None if folder == sample_folder(task) else str(folder)
    parts = {"train": spec.recipe, "encode": spec.encoding, "decode": spec.decoding}
    settings: dict[str, Any] = {
        f"{part}.{name}": value
        for part, model in parts.items()
        if model is not None
        for name, value in model.model_dump(mode="json").items()
        if value is not None
    }
    settings |= {f"delta.{k}": v for k, v in spec.delta.items() if k != "delta_type"}
    usual = Execution().model_dump(mode="json")
    execution = record.execution.model_dump(mode="json")
    settings |= {f"run.{k}": v for k, v in execution.items() if v != usual[k]}
    chosen = {name: value for name, value in options.items() if value not in (None, False, 0)}
    fold = {} if spec.data.fold is None else {"fold": spec.data.fold}
    again = {**chosen, **fold, "seed": spec.seed, "set": settings}
    return again | _search_of(spec, settings) if searching and spec.search else again


def _search_of(spec: RunSpec, settings: dict[str, Any]) -> dict[str, Any]:
    """The options of the search by which a run was found."""
    search = spec.search
    assert search is not None
    budget = {"trials": search.trials, "prune": search.pruner is not None}
    return {
        **budget,
        **({"seconds": search.seconds} if search.seconds is not None else {}),
        "seed": search.seed,
        "seeds": [spec.seed],
        "space": dict(search.space),
        "set": {key: value for key, value in settings.items() if key not in search.space},
    }


def _backbone(record: RunRecord, path: Path) -> str:
    """Where the backbone is. Records come from anybody: nothing is downloaded."""
    if Path(record.backbone.path).is_dir():
        return record.backbone.path
    if record.backbone.name in NAMES:  # of another installation
        return record.backbone.name
    raise UserError(
        f"{path}: the backbone {record.backbone.name} is not at {record.backbone.path}; give its "
        "folder with --backbone."
    )


def _preset(record: RunRecord) -> str:
    """A preset of the run's delta method: the one of its name if there is one."""
    kind = record.spec.delta["delta_type"]
    alike = [n for n in preset_files() if load_preset(n).get("delta_type") == kind]
    if not alike:
        raise UserError(f"no preset has the delta_type '{kind}' of the record.")
    return record.delta.name if record.delta.name in alike else alike[0]


def differences(before: RunSpec, now: RunSpec) -> Iterator[str]:
    """What differs between a run's spec and that of the run made from its record."""
    old, new = flattened(before), flattened(now)
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key):
            yield f"{key} was {old.get(key)}, is now {new.get(key)}"


def compared(path: Path, spec: RunSpec) -> list[str]:
    """Sentences on whether a spec is that of a record."""
    before = read_record(path).spec
    if before.search is not None and before.training_sha256 == spec.sha256:
        return [
            f"{path}: the same training; a search found its settings, so that run has another id "
            f"than {spec.run_id}"
        ]
    if before.sha256 == spec.sha256:
        return [f"{path}: the same run, {spec.run_id}"]
    return [f"{path}: another run: {each}" for each in differences(before, spec)]


class Results:
    """What a run left, to compare a run from its record with, which may replace it."""

    def __init__(self, path: Path) -> None:
        """`path`: the run's record."""
        self._path, self._record = path, read_record(path)
        self._files = {name: _content(path.parent / name) for name in self._record.predictions}

    @property
    def spec(self) -> RunSpec:
        """The run's spec."""
        return self._record.spec

    def compared(self, folder: Path) -> list[str]:
        """Sentences on whether the run in `folder` has the same predictions and delta, and if not,
        where they differ first and what else differs; none if it is this run, as it was."""
        now = read_record(folder / RECORD)
        if now == self._record or now.status != "finished" or self._record.status != "finished":
            return []
        place, before = self._path.parent, self._record
        lines = [
            self._first(name, sha256, folder)
            for name, sha256 in before.predictions.items()
            if now.predictions.get(name) != sha256
        ]
        if not lines:
            same = "" if now.delta.sha256 == before.delta.sha256 else "; the delta differs"
            return [f"the predictions are those of {place}, byte by byte{same}"]
        return [*lines, _elsewhere(before, now)]

    def _first(self, name: str, sha256: str, folder: Path) -> str:
        old, new = self._files[name], _content(folder / name)
        where = f"{folder / name} differs from that of {self._path.parent}"
        if new is None or old is None or hashlib.sha256(old).hexdigest() != sha256:
            return f"{where}, whose file is not there any more"
        pairs = itertools.zip_longest(old.splitlines(), new.splitlines())
        for number, (first, second) in enumerate(pairs, start=1):
            if first != second:
                return f"{where}, first in line {number}: it was {_line(first)}, is {_line(second)}"
        return where


def _content(path: Path) -> bytes | None:
    try:
        return read_regular(path) if path.stat().st_size <= _MOST else None
    except OSError:
        return None


def _line(raw: bytes | None) -> str:
    return "not there" if raw is None else shortened(raw.decode("utf-8", "replace"), 120)


def _elsewhere(before: RunRecord, now: RunRecord) -> str:
    """What may be the reason that two runs of one spec differ."""
    old, new = before.environment, now.environment
    if old is None or new is None:
        return "the record does not say where the run was made"
    parts: list[tuple[str, object, object]] = [("numbers", before.numbers, now.numbers)]
    parts += [(n, getattr(old, n), getattr(new, n)) for n in ("threads", "device", "world_size")]
    packages = sorted({*old.packages, *new.packages})
    parts += [(name, old.packages.get(name), new.packages.get(name)) for name in packages]
    parts += [("python", old.python, new.python), ("gpu", old.gpu or None, new.gpu or None)]
    changed = [f"{name} was {a}, is {b}" for name, a, b in parts if a != b]
    if changed:
        return f"what else differs: {'; '.join(changed)}"
    return "threads, device and packages are the same, so the machine may be another"
