"""What goes on in a results folder: unfinished runs with their progress, failures, the sweep.

Everything is read from the files that runs write anyway; nothing here locks or changes them. A file
that is half-written, or gone since it was listed, says nothing and is no error.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cpm_tune.common.folders import (
    DELTA,
    FAILED,
    LOG,
    PARTIAL,
    RECORD,
    SWEEP,
    predictions_file,
    worked_on,
)
from cpm_tune.common.reading import open_regular, parse_json, read_json
from cpm_tune.common.sizes import shortened
from cpm_tune.data.batches import total_steps
from cpm_tune.schema.record import RunRecord

SHOWN = 200  # unfinished runs, and failures
_TAIL = 16_384  # bytes of a log that contain its last entries
_TEXT = 500  # characters of an error


def activity(
    unfinished: Iterable[tuple[Path, RunRecord]], finished: Collection[str], places: Iterable[Path]
) -> dict[str, Any]:
    """What goes on, as JSON values: `runs` (unfinished ones, those at work first), `failed`,
    `sweeps`.

    `unfinished` are folders in the making with their records, `finished` the ids of finished runs,
    `places` the folders that have runs.
    """
    runs = [run for folder, record in unfinished if (run := _run(folder, record)) is not None]
    runs.sort(key=lambda run: (run["working"] is False, run["id"]))
    failed: dict[str, dict[str, str]] = {}
    sweeps = []
    begun = {run["id"]: run for run in runs}
    for place in places:
        notes = dict(_failures(place, finished))
        failed |= notes
        if (sweep := _sweep(place, finished, begun, notes)) is not None:
            sweeps.append(sweep)
    failed |= {run["id"]: run for run in runs if run["error"] and run["id"] not in failed}
    runs = [run for run in runs if run["id"] not in failed or run["working"]]
    shown = [{key: note[key] for key in ("name", "error")} for note in failed.values()]
    return {
        "runs": runs[:SHOWN],
        "more": max(0, len(runs) - SHOWN),
        "failed": shown[:SHOWN],
        "sweeps": sweeps,
    }


def _run(folder: Path, record: RunRecord) -> dict[str, Any] | None:
    """An unfinished run; None if its folder has got its final name by now."""
    run_id, spec = folder.name.removesuffix(PARTIAL), record.spec
    log, changed = folder / LOG, 0.0
    for path in (folder / RECORD, log):
        with contextlib.suppress(OSError):
            changed = max(changed, path.stat().st_mtime)
    if not changed:
        return None
    entries = list(_tail(log))
    interrupted = record.status == "failed" and record.error == "interrupted"
    failed = record.status == "failed" and not interrupted
    return {
        "id": run_id,
        "name": f"{spec.task}, {record.name}",
        "seed": spec.seed,
        "working": not failed and not interrupted and worked_on(folder.parent, run_id),
        "stage": _stage(folder, record, bool(entries)),
        "step": next((e["step"] for e in reversed(entries)), 0),
        "total": _total(record),
        "metric": record.ranks_by,
        "dev": next((e["dev"] for e in reversed(entries) if "dev" in e), None),
        "left": _seconds_left(entries, _total(record)),
        "silent": max(0, round(time.time() - changed)),
        "error": shortened(record.error or "", _TEXT) if failed else "",
    }


def _stage(folder: Path, record: RunRecord, begun: bool) -> str:
    """What a run does, by the files that it has written."""
    if (folder / predictions_file("test")).exists():
        return "ending"
    if (folder / predictions_file("dev")).exists():
        return "test"
    if record.spec.recipe is None or (folder / DELTA).exists():
        return "dev"
    return "training" if begun else "starting"


def _total(record: RunRecord) -> int:
    """The steps of a whole training; 0 if that is not known."""
    recipe, train = record.spec.recipe, record.data.get("train")
    if recipe is None:
        return 0
    if train is None or not train.n:  # a record of an earlier version
        return recipe.max_steps or 0
    return total_steps(recipe.rows_used(train.n), recipe)


def _tail(log: Path) -> Iterator[Mapping[str, Any]]:
    """The last entries of a log that can be read."""
    with contextlib.suppress(OSError), open_regular(log) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
        for line in file.read(2 * _TAIL).splitlines():
            with contextlib.suppress(ValueError, RecursionError):  # cut off, or half-written
                entry = parse_json(line, finite=False)
                if isinstance(entry, dict) and _is_entry(entry):
                    yield entry


def _is_entry(entry: Mapping[str, Any]) -> bool:
    numbers = [entry.get("time"), entry.get("dev", 0.0)]
    plain = all(isinstance(n, int | float) and abs(n) < 1e12 for n in numbers)
    return type(entry.get("step")) is int and 0 <= entry["step"] < 2**53 and plain


def _seconds_left(entries: list[Mapping[str, Any]], total: int) -> int | None:
    """The seconds that the other steps take if they are as fast as the last ones."""
    if len(entries) < 2 or not total:
        return None
    first, last = entries[0], entries[-1]
    steps, seconds = last["step"] - first["step"], last["time"] - first["time"]
    return round(max(0, total - last["step"]) * seconds / steps) if steps > 0 < seconds else None


def _failures(place: Path, finished: Collection[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The trials whose failure `bench` has noted, by run id."""
    with contextlib.suppress(OSError):
        for path in sorted((place / FAILED).glob("*.json"))[:SHOWN]:
            note = _mapping(path)
            texts = {key: shortened(str(note.get(key, "")), _TEXT) for key in ("name", "error")}
            if path.stem not in finished and any(texts.values()):
                yield path.stem, texts


def _sweep(
    place: Path,
    finished: Collection[str],
    begun: Mapping[str, Mapping[str, Any]],
    failed: Collection[str],
) -> dict[str, Any] | None:
    """How many trials of the latest sweep are in which state; None without a sweep, and if all are
    finished."""
    states = Counter(
        "finished"
        if run_id in finished
        else "running"
        if run_id in begun and begun[run_id]["working"] is not False
        else "failed"
        if run_id in failed
        else "waiting"
        for run_id in _mapping(place / SWEEP)
    )
    if not states or set(states) == {"finished"}:
        return None
    return {"folder": place.name, "total": states.total(), **states}


def _mapping(path: Path) -> dict[str, Any]:
    try:
        values = read_json(path)
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
