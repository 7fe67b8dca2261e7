"""Which files of a folder may be those of a split, by their names alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cpm_tune.data.readers import JSON_ENDINGS, TABLES
from cpm_tune.task import Task


@dataclass(frozen=True)
class SplitFile:
    """One split on disk, one file or several read one after the other, and its fingerprint.

    If another split stands in for it, or some of another's records do, `source` is that split,
    `digits` are the last digits of the numbers (from 0) of the records that count (none: all), and
    `note` says so; scores with a note are not comparable. A `warning` says which files were chosen.
    """

    split: str
    paths: tuple[Path, ...]
    sha256: str
    source: str = ""
    digits: tuple[int, ...] = ()
    note: str = ""
    warning: str = ""

    @property
    def path(self) -> Path:
        """The (first) file."""
        return self.paths[0]

    @property
    def written_for(self) -> str:
        """The split that the files are officially."""
        return self.source or self.split

    @property
    def without_rows(self) -> str:
        """What to say if no row is left."""
        if self.note:
            return f"{self.note}, which leaves it no rows"
        return f"the {self.split} split has no rows"

    def has(self, number: int) -> bool:
        """Whether the record of that number, from 0, is in the split."""
        return not self.digits or number % 10 in self.digits


def file_sets(task: Task, folder: Path, split: str) -> list[tuple[Path, ...]]:
    """The accepted sets of files of a split that exist; one inside another does not count, nor one
    that a newer one replaces."""
    sets: list[tuple[Path, ...]] = []
    for accepted in task.files.names[split]:
        names = members(accepted)
        matches = [_matches(task, folder, name) for name in names]
        if not all(matches):
            continue
        if len(names) == 1 and not (task.files.parts and "*" in names[0]):
            sets += [(path,) for path in matches[0]]
        else:
            sets.append(tuple(path for match in matches for path in match))
    sets = [
        paths
        for i, paths in enumerate(sets)
        if not any(
            set(paths) < set(other) or (set(paths) == set(other) and j < i)
            for j, other in enumerate(sets)
        )
    ]
    return [s for s in sets if s[0].name not in task.files.replaced] or sets


def whole_file(task: Task, folder: Path) -> list[Path]:
    """The files of a folder that have the rows of all splits."""
    return [path for name in task.files.whole for path in _matches(task, folder, name)]


def incomplete(task: Task, folder: Path, split: str) -> list[str]:
    """One sentence for each accepted set of files of which only some exist."""
    sentences = []
    for accepted in task.files.names[split]:
        names = members(accepted)
        present = [name for name in names if _matches(task, folder, name)]
        absent = [name for name in names if name not in present]
        if present and absent:
            is_are = "is" if len(absent) == 1 else "are"
            sentences.append(
                f"{' and '.join(absent)} {is_are} missing (needed with {' and '.join(present)})."
            )
    return sentences


def companions(task: Task, file: SplitFile) -> list[str]:
    """The files that the official data has together with a split's, and that are missing."""
    absent = []
    for accepted in task.files.names[file.written_for]:
        names = () if isinstance(accepted, str) else accepted
        if names and names[0] == file.path.name and len(file.paths) < len(names):
            absent += [n for n in names[1:] if not _matches(task, file.path.parent, n)]
    return absent


def members(accepted: str | tuple[str, ...]) -> tuple[str, ...]:
    """The files of one accepted set."""
    return (accepted,) if isinstance(accepted, str) else accepted


def _matches(task: Task, folder: Path, name: str) -> list[Path]:
    """The files of that name; of a pattern's only those in the task's parts, if it has parts."""
    parts = task.files.parts
    if "*" in name:
        files = sorted(path for path in folder.glob(name) if path.is_file())
        return [path for path in files if not parts or path.parent.name in parts]
    if Path(name).suffix:
        return [folder / name] if (folder / name).is_file() else []
    endings = (*JSON_ENDINGS, *TABLES)
    return [path for end in endings if (path := folder / f"{name}{end}").is_file()]
