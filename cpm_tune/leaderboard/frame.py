"""The runs of a results folder as a pandas DataFrame."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpm_tune.errors import UserError
from cpm_tune.leaderboard.results import AnyStored, read_folder
from cpm_tune.schema.record import RunRecord
from cpm_tune.schema.spec import flattened

if TYPE_CHECKING:
    import pandas as pd


def as_dataframe(results: str | PathLike[str] = "results") -> pd.DataFrame:
    """One row per finished run (or scored system) with a test score, in the order of folders.

    Columns: run_id, folder, task, system (backbone and delta), seed, metric, test, low, high, n,
    better ("higher" or "lower"), dev, comparable, note, n_trainable, samples_per_second, seconds,
    peak_memory_bytes, energy_joules, `control.NAME` for every control, `forgetting.SOURCE` for the
    plain texts that were measured (nats per character more with the delta), and `spec.KEY` for
    every setting of the run spec. Values that a row lacks are missing. Raises UserError if there is
    no such folder.
    """
    import pandas as pd

    if not isinstance(results, str | PathLike) or not str(results):
        raise UserError(f"results is {results!r:.40}, expected a path.")
    found = read_folder(Path(results))
    rows = [*map(_row, found.runs), *map(_row, found.systems)]
    return pd.DataFrame(sorted(rows, key=lambda row: row["folder"]))


def _row(stored: AnyStored) -> dict[str, Any]:
    record, test = stored.record, stored.record.test
    row: dict[str, Any] = {
        "run_id": record.run_id,
        "folder": str(stored.folder),
        "task": record.spec.task,
        "system": record.name,
        "seed": record.spec.seed,
        "metric": record.ranks_by,
        "test": test.value,
        "low": test.low,
        "high": test.high,
        "n": test.n,
        "better": "higher" if test.higher_is_better else "lower",
        "comparable": record.comparable,
        "note": record.note,
    }
    if isinstance(record, RunRecord):
        row["dev"] = record.scores["dev"][record.ranks_by].value if "dev" in record.scores else None
        row["n_trainable"] = record.delta.n_trainable
        if record.training is not None:
            row["samples_per_second"] = record.training.samples_per_second
        if record.environment is not None:
            row["seconds"] = record.environment.seconds
            row["peak_memory_bytes"] = record.environment.peak_memory_bytes
            row["energy_joules"] = record.environment.energy_joules
        row |= {f"control.{name}": each.value for name, each in record.controls.items()}
        row |= {f"forgetting.{name}": each.difference for name, each in record.forgetting.items()}
    return row | {f"spec.{key}": value for key, value in flattened(record.spec).items()}
