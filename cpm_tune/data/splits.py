"""The splits of a task in a folder: their files, or what stands in for a split that is not there.

What is missing or ambiguous is a UserError. `tune` and every command that describes a folder find
splits here, so that they agree.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

from cpm_tune.common.paths import input_sha256, name_fault, shipped
from cpm_tune.data.file_sets import SplitFile, file_sets, incomplete, members, whole_file
from cpm_tune.data.files import answers_withheld, checked_rows
from cpm_tune.errors import UserError
from cpm_tune.task import SPLITS, Task

__all__ = (
    "SplitFile",
    "check_first_rows",
    "data_folder",
    "edition",
    "find_splits",
    "is_sample",
    "missing_parts",
    "sample_folder",
)

# Which records belong to a split, by the last digit of their numbers.
_OF_TRAIN = {"train": (0, 1, 2, 3, 4, 5, 6, 7, 8), "dev": (9,)}
_OF_ONE_FILE = {"train": (0, 1, 2, 3, 4, 5, 6, 7), "dev": (8,), "test": (9,)}
DEV_AS_TEST = "there is no test split: dev is scored as test"


def sample_folder(task: Task) -> Path:
    """The folder of the data written for this project."""
    return shipped("tasks") / "sample" / task.name


def data_folder(task: Task, data: Path | None) -> Path:
    """Where a task's files are: without --data the sample data, else DIR/NAME if there is such a
    folder (case and punctuation do not count), else DIR."""
    if data is None:
        return sample_folder(task)
    if (data / task.name).is_dir():
        return data / task.name
    name = _letters(task.name)
    folders = data.iterdir() if data.is_dir() else ()
    alike = [path for path in folders if _letters(path.name) == name and path.is_dir()]
    return alike[0] if len(alike) == 1 else data


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def is_sample(task: Task, splits: Mapping[str, SplitFile]) -> bool:
    """Whether any of these files is one of the task's sample data, in whatever folder."""
    folder = sample_folder(task)
    if not folder.is_dir():
        return False
    known = {input_sha256(path) for path in folder.rglob("*") if path.is_file()}
    return any(input_sha256(path) in known for file in splits.values() for path in file.paths)


def find_splits(
    task: Task,
    folder: Path,
    needed: tuple[str, ...] = SPLITS,
    optional: tuple[str, ...] = (),
    *,
    fold: int | None = None,
    fingerprints: bool = True,
) -> dict[str, SplitFile]:
    """Find the files of each needed split; raise UserError for what is missing (unless optional) or
    ambiguous.

    - Of several files for the test split, the one with answers is taken.
    - Without a test split, dev is scored as test.
    - If the dev split has no answers, or the official data has no dev split, every tenth record of
      train is dev.
    - If one file has all rows, of ten records eight are train, one is dev and one test.

    With a `fold`, the files of train and dev are those with its number: train_0, dev_0.

    Without `fingerprints`, `sha256` is empty and the files are read no further than needed.
    """
    if not folder.is_dir():
        if folder == sample_folder(task):
            raise UserError(f"task {task.name} has no sample data; give its files with --data DIR.")
        fault = "this is a file, expected its folder" if folder.is_file() else ""
        raise UserError(f"--data {folder}: {fault or 'there is no such folder'}.")
    if fold is not None:
        task = _of_fold(task, fold)
    missing, splits = [], {}
    for split in needed:
        file = _from_one_file(task, folder, split) or _split(task, folder, split)
        if file is not None:
            for path in file.paths:
                if fault := name_fault(path):
                    raise UserError(f"{path}: {fault}.")
            splits[split] = replace(file, sha256=_fingerprint(file)) if fingerprints else file
        elif split not in optional or incomplete(task, folder, split):
            missing.append(split)
    if missing:
        raise UserError(_not_found(task, folder, missing))
    return splits


def folds_sha256(task: Task, folder: Path) -> str:
    """The fingerprint of train and dev of every fold in a folder, from number 0 on."""
    shas = list[str]()
    for fold in count():
        numbered = _of_fold(task, fold)
        sets = [paths for split in ("train", "dev") for paths in file_sets(numbered, folder, split)]
        if not sets:
            return hashlib.sha256("".join(shas).encode()).hexdigest()
        shas += [input_sha256(path) for paths in sets for path in paths]
    raise AssertionError("count() does not end")


def _of_fold(task: Task, fold: int) -> Task:
    """The task with the names of a fold's files for train and dev."""

    def numbered(name: str) -> str:
        path = Path(name)
        return str(path.with_name(f"{path.stem}_{fold}{path.suffix}"))

    names = {
        split: tuple(
            numbered(name) if isinstance(name, str) else tuple(map(numbered, name))
            for name in accepted
        )
        for split, accepted in task.files.names.items()
        if split != "test"
    }
    files = replace(task.files, names={**task.files.names, **names}, whole=())
    return replace(task, files=files)


def check_first_rows(task: Task, splits: Mapping[str, SplitFile], n: int = 20) -> None:
    """Raise UserError if one of the first rows of a split is not as the task expects it."""
    for file in splits.values():
        if not list(islice(checked_rows(task, file), n)):
            raise UserError(f"{file.path}: {file.without_rows}.")


def edition(task: Task, file: SplitFile, n: int) -> str:
    """The edition of a dataset that a split of `n` rows belongs to, if it is known and whole."""
    if file.digits:
        return ""
    return task.source.edition(file.written_for, n, [input_sha256(path) for path in file.paths])


def missing_parts(task: Task, splits: Mapping[str, SplitFile]) -> list[str]:
    """One clause per split whose files are only some of the task's parts."""
    clauses = []
    for name, file in splits.items():
        present = {path.parent.name for path in file.paths}
        absent = [part for part in task.files.parts if part not in present]
        if 0 < len(absent) < len(task.files.parts):
            clauses.append(f"the {name} split lacks the part {' and '.join(absent)}")
    return clauses


def _split(task: Task, folder: Path, split: str) -> SplitFile | None:
    """The split's own files, or what stands in for them; None if nothing does."""
    file = _own_files(task, folder, split)
    if split == "test":
        if file is not None or incomplete(task, folder, "test"):
            return file
        dev = _own_files(task, folder, "dev")
        usable = dev is not None and not _lacks_answers(task, dev)
        return (
            replace(dev, split="test", source="dev", note=DEV_AS_TEST) if dev and usable else None
        )
    train = _own_files(task, folder, "train")
    reason = _why_dev_is_of_train(task, folder) if train is not None else ""
    if train is None or not reason:
        return file
    note = f"{reason}: every tenth record of train is dev" if split == "dev" else ""
    return replace(train, split=split, source="train", digits=_OF_TRAIN[split], note=note)


def _why_dev_is_of_train(task: Task, folder: Path) -> str:
    """Why dev has to be taken from train; "" if it has files with answers."""
    if len(file_sets(task, folder, "dev")) > 1:
        return ""
    if (dev := _own_files(task, folder, "dev")) is not None:
        return "the dev split has no answers" if _lacks_answers(task, dev) else ""
    official = task.source.sizes
    none = official[0] is not None and official[1] is None
    if not none or incomplete(task, folder, "dev"):
        return ""
    return "the official data has no dev split"


def _from_one_file(task: Task, folder: Path, split: str) -> SplitFile | None:
    """The split's share of the one file that has all rows, if there are no other files."""
    whole = whole_file(task, folder)
    if len(whole) != 1 or any(file_sets(task, folder, name) for name in SPLITS):
        return None
    (path,) = whole
    digits = _OF_ONE_FILE[split]
    note = f"of ten records of {path.name} one is {split}" if split != "train" else ""
    return SplitFile(split, (path,), "", "train", digits, note)


def _own_files(task: Task, folder: Path, split: str) -> SplitFile | None:
    """The files of a split itself. Raises UserError if several could be."""
    files = [SplitFile(split, paths, "") for paths in file_sets(task, folder, split)]
    if len(files) > 1 and split == "test":
        answered = [file for file in files if not _lacks_answers(task, file)]
        if len(answered) == 1:
            others = " and ".join(file.path.name for file in files if file not in answered)
            has = "has" if len(files) == 2 else "have"
            warning = f"test: {answered[0].path.name} is scored; {others} {has} no answers"
            return replace(answered[0], warning=warning)
    if len(files) > 1:
        names = " and ".join(str(file.path.relative_to(folder)) for file in files)
        raise UserError(f"{folder}: {names} could both be the {split} split; keep one of them.")
    return files[0] if files else None


def _lacks_answers(task: Task, file: SplitFile) -> bool:
    """Whether no row of a file has an answer; one that cannot be read is not known to lack them."""
    try:
        return answers_withheld(task, replace(file, split="test", source=file.split))
    except UserError:
        return False


def _not_found(task: Task, folder: Path, missing: list[str]) -> str:
    """What is missing, what it may be called, what the folder contains instead."""
    accepted = [task.files.names[split] for split in missing]
    names = [
        f"{split} ({' or '.join(' with '.join(members(name)) for name in known)})"
        for split, known in zip(missing, accepted, strict=True)
    ]
    stems = any(
        isinstance(n, str) and "*" not in n and not Path(n).suffix for n in sum(accepted, ())
    )
    parts = [part for split in missing for part in incomplete(task, folder, split)]
    if any(folder.glob("train_0.*")) and "train" in missing:
        parts.append("Numbered files are read with --fold 0.")
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


def _fingerprint(file: SplitFile) -> str:
    """The SHA-256 of a split's records: that of its file, or of its files' and of its share."""
    shas = [input_sha256(path) for path in file.paths]
    if file.digits:
        shas.append("records " + ",".join(map(str, file.digits)))
    return shas[0] if len(shas) == 1 else hashlib.sha256("".join(shas).encode()).hexdigest()
