"""Which files of a folder are a task's splits; what is missing or ambiguous is a UserError."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cpm_tune.common.paths import input_sha256, shipped
from cpm_tune.data.readers import JSON_ENDINGS, TABLES
from cpm_tune.errors import UserError
from cpm_tune.task import SPLITS, Task


@dataclass(frozen=True)
class SplitFile:
    """One split on disk, one file or several read one after the other, and its fingerprint."""

    split: str
    paths: tuple[Path, ...]
    sha256: str

    @property
    def path(self) -> Path:
        """The (first) file."""
        return self.paths[0]


def sample_folder(task: Task) -> Path:
    """The folder of the data written for this project."""
    return shipped("tasks") / "sample" / task.name


def is_sample(task: Task, splits: dict[str, SplitFile]) -> bool:
    """Whether any of these files is one of the task's sample data, in whatever folder."""
    folder = sample_folder(task)
    if not folder.is_dir():
        return False
    known = {input_sha256(path) for path in folder.rglob("*") if path.is_file()}
    return any(
        file.sha256 in known or any(input_sha256(path) in known for path in file.paths[1:])
        for file in splits.values()
    )


def find_splits(
    task: Task,
    folder: Path,
    needed: tuple[str, ...] = SPLITS,
    optional: tuple[str, ...] = (),
) -> dict[str, SplitFile]:
    """Find the files of each needed split; raise UserError for what is missing (unless optional) or
    ambiguous."""
    if not folder.is_dir():
        if folder == sample_folder(task):
            raise UserError(f"task {task.name} has no sample data; give its files with --data DIR.")
        fault = "this is a file, expected its folder" if folder.is_file() else ""
        raise UserError(f"--data {folder}: {fault or 'there is no such folder'}.")
    missing, splits = [], {}
    for split in needed:
        sets = _file_sets(task, folder, split)
        if len(sets) > 1:
            names = " and ".join(str(paths[0].relative_to(folder)) for paths in sets)
            raise UserError(f"{folder}: {names} could both be the {split} split; keep one of them.")
        if sets:
            splits[split] = SplitFile(split, sets[0], _fingerprint(sets[0]))
        elif split not in optional or _incomplete(task, folder, split):
            missing.append(split)
    if missing:
        raise UserError(_not_found(task, folder, missing))
    return splits


def missing_parts(task: Task, splits: Mapping[str, SplitFile]) -> list[str]:
    """One clause per split whose files are only some of the task's parts."""
    clauses = []
    for name, file in splits.items():
        present = {path.parent.name for path in file.paths}
        absent = [part for part in task.files.parts if part not in present]
        if 0 < len(absent) < len(task.files.parts):
            clauses.append(f"the {name} split lacks the part {' and '.join(absent)}")
    return clauses


def splits_there(task: Task, folder: Path) -> list[str]:
    """The splits that find_splits finds in a folder, each on its own; nothing is read."""
    return [split for split in SPLITS if len(_file_sets(task, folder, split)) == 1]


def _not_found(task: Task, folder: Path, missing: list[str]) -> str:
    """What is missing, what it may be called, what the folder contains instead."""
    accepted = [task.files.names[split] for split in missing]
    names = [
        f"{split} ({' or '.join(' with '.join(_members(name)) for name in known)})"
        for split, known in zip(missing, accepted, strict=True)
    ]
    stems = any(
        isinstance(n, str) and "*" not in n and not Path(n).suffix for n in sum(accepted, ())
    )
    parts = [part for split in missing for part in _incomplete(task, folder, split)]
    contents = sorted(
        f"{path.name}/" if path.is_dir() else path.name
        for path in folder.iterdir()
        if not path.name.startswith(".")
    )
    listed = ", ".join(contents[:8])
    listed += f" and {len(contents) - 8} more" if len(contents) > 8 else ""
    return (
        f"{folder}: no file for {', '.join(names)}"
        f"{'; stems may end in .jsonl, .json, .tsv, .txt or .csv' if stems else ''} "
        f"(task {task.name}). {''.join(f'{part} ' for part in parts)}"
        f"The folder {f'contains {listed}' if contents else 'is empty'}."
    )


def _incomplete(task: Task, folder: Path, split: str) -> list[str]:
    """One sentence for each accepted set of files of which only some exist."""
    sentences = []
    for accepted in task.files.names[split]:
        members = _members(accepted)
        present = [name for name in members if _matches(task, folder, name)]
        absent = [name for name in members if name not in present]
        if present and absent:
            is_are = "is" if len(absent) == 1 else "are"
            sentences.append(
                f"{' and '.join(absent)} {is_are} missing (needed with {' and '.join(present)})."
            )
    return sentences


def companions(task: Task, file: SplitFile) -> list[str]:
    """The files that the official data has together with a split's, and that are missing."""
    absent = []
    for accepted in task.files.names[file.split]:
        members = () if isinstance(accepted, str) else accepted
        if members and members[0] == file.path.name and len(file.paths) < len(members):
            absent += [n for n in members[1:] if not _matches(task, file.path.parent, n)]
    return absent


def _file_sets(task: Task, folder: Path, split: str) -> list[tuple[Path, ...]]:
    """The accepted sets of files of a split that exist; one inside another does not count."""
    sets: list[tuple[Path, ...]] = []
    for accepted in task.files.names[split]:
        members = _members(accepted)
        matches = [_matches(task, folder, member) for member in members]
        if not all(matches):
            continue
        if len(members) == 1 and not (task.files.parts and "*" in members[0]):
            sets += [(path,) for path in matches[0]]
        else:
            sets.append(tuple(path for match in matches for path in match))
    return [
        paths
        for i, paths in enumerate(sets)
        if not any(
            set(paths) < set(other) or (set(paths) == set(other) and j < i)
            for j, other in enumerate(sets)
        )
    ]


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


def _members(accepted: str | tuple[str, ...]) -> tuple[str, ...]:
    return (accepted,) if isinstance(accepted, str) else accepted


def _fingerprint(paths: tuple[Path, ...]) -> str:
    if len(paths) == 1:
        return input_sha256(paths[0])
    return hashlib.sha256("".join(map(input_sha256, paths)).encode()).hexdigest()
