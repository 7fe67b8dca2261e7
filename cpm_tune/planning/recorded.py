"""Where a run found its data: the folder whose files have the fingerprints of the run's record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cpm_tune.data.splits import find_splits, sample_folder
from cpm_tune.errors import UserError
from cpm_tune.schema.record import AnyRecord
from cpm_tune.task import SPLITS, Task


def recorded_folder(task: Task, record: AnyRecord, needed: Sequence[str] = ("test",)) -> Path:
    """The folder in which a record's run found its data; the sample data of this installation, if
    it was another's. UserError if a needed split is not there any more."""
    data = record.spec.data
    wanted = {split: sha for split in SPLITS if (sha := getattr(data, split)) is not None}
    needed = [split for split in needed if split in wanted]
    places = [sample_folder(task)] if data.sample else []
    places += [folder for each in record.data.values() for folder in folders(task, each.path)]
    best, most = None, (False, 0)
    for folder in dict.fromkeys(places):
        here = {
            split for split in wanted if _sha256(task, folder, split, data.fold) == wanted[split]
        }
        if (fit := (here.issuperset(needed), len(here))) > most:
            best, most = folder, fit
    if best is not None and most[0]:
        return best
    split = next((split for split in needed if split in record.data), "test")
    path = record.data[split].path if split in record.data else f"the {split} file"
    raise UserError(f"{path} is not the file of the record any more; give --data DIR.")


def is_bundled(task: Task, record: AnyRecord) -> bool:
    """Whether all data of a record's run were the sample data, of any installation."""
    paths = [part for each in record.data.values() for part in each.path.split(", ")]
    place = f"/tasks/sample/{task.name}/"
    return record.spec.data.sample and all(place in path.replace("\\", "/") for path in paths)


def folders(task: Task, path: str) -> Iterator[Path]:
    """The folders that may contain a split of the task, by the path of its file (the first of
    several)."""
    first = Path(path) if Path(path).is_file() else Path(path.split(", ")[0])
    accepted = [one for names in task.files.names.values() for one in names]
    names = [name for one in accepted for name in ((one,) if isinstance(one, str) else one)]
    for depth in sorted({name.count("/") for name in names}):
        if depth < len(first.parents):
            yield first.parents[depth]


def _sha256(task: Task, folder: Path, split: str, fold: int | None) -> str | None:
    """A split's fingerprint in a folder, None if it is not there."""
    try:
        return find_splits(task, folder, (split,), fold=fold)[split].sha256
    except UserError:
        return None
