"""Finds a task's files and checks their rows. Every fault is a UserError that names file and line.

What a row is: `id`, the task's columns without the one that holds the answer, and `target`: the
number of the right option, the documents' grades, or the text to write; None where a test split
has no answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpm_tune.data.readers import JSON_ENDINGS, TABLES, records
from cpm_tune.errors import UserError
from cpm_tune.paths import input_sha256, shipped
from cpm_tune.sizes import counted
from cpm_tune.task import SPLITS, BadRow, Choice, Options, Rank, Row, Task


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
    """Whether any of these files is one of the task's sample data, wherever it lies."""
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
        raise UserError(f"--data {folder}: there is no such folder.")
    missing, found = [], {}
    for split in needed:
        sets = _file_sets(task, folder, split)
        if len(sets) > 1:
            names = " and ".join(str(paths[0].relative_to(folder)) for paths in sets)
            raise UserError(f"{folder}: {names} could both be the {split} split; keep one of them.")
        if sets:
            found[split] = SplitFile(split, sets[0], _fingerprint(sets[0]))
        elif split not in optional or _incomplete(task, folder, split):
            missing.append(split)
    if missing:
        raise UserError(_not_found(task, folder, missing))
    return found


def missing_parts(task: Task, splits: Mapping[str, SplitFile]) -> list[str]:
    """What splits lack whose files are only some of the task's parts."""
    said = []
    for name, file in splits.items():
        there = {path.parent.name for path in file.paths}
        absent = [part for part in task.files.parts if part not in there]
        if absent and len(absent) < len(task.files.parts):
            said.append(f"the {name} split lacks the part {' and '.join(absent)}")
    return said


def splits_there(task: Task, folder: Path) -> list[str]:
    """The splits whose files are in a folder; nothing is read."""
    return [split for split in SPLITS if _file_sets(task, folder, split)]


def _not_found(task: Task, folder: Path, missing: list[str]) -> str:
    """What is missing, what it may be called, what is there instead."""
    accepted = [task.files.names[split] for split in missing]
    names = [
        f"{split} ({' or '.join(map(_said, known))})"
        for split, known in zip(missing, accepted, strict=True)
    ]
    stems = any(
        isinstance(n, str) and "*" not in n and not Path(n).suffix for n in sum(accepted, ())
    )
    parts = [part for split in missing for part in _incomplete(task, folder, split)]
    there = sorted(
        f"{path.name}/" if path.is_dir() else path.name
        for path in folder.iterdir()
        if not path.name.startswith(".")
    )
    holds = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
    return (
        f"{folder}: no file for {', '.join(names)}"
        f"{'; stems may end in .jsonl, .json, .tsv, .txt or .csv' if stems else ''} "
        f"(task {task.name}). {''.join(f'{part} ' for part in parts)}"
        f"The folder {f'holds {holds}' if there else 'is empty'}."
    )


def _incomplete(task: Task, folder: Path, split: str) -> list[str]:
    """One sentence for each accepted set of files of which only a part is there."""
    said = []
    for accepted in task.files.names[split]:
        members = (accepted,) if isinstance(accepted, str) else accepted
        there = [name for name in members if _matches(folder, name)]
        if there and len(there) < len(members):
            absent = " and ".join(name for name in members if name not in there)
            said.append(f"Beside {' and '.join(there)} {absent} is missing.")
    return said


def _companions(task: Task, file: SplitFile) -> list[str]:
    """Files that official layouts have beside those of a split, and that are not there."""
    absent = []
    for accepted in task.files.names[file.split]:
        members = () if isinstance(accepted, str) else accepted
        if members and members[0] == file.path.name and len(file.paths) < len(members):
            absent += [n for n in members[1:] if not _matches(file.path.parent, n)]
    return absent


def _file_sets(task: Task, folder: Path, split: str) -> list[tuple[Path, ...]]:
    """The accepted sets of files of a split that are there; one inside another does not count."""
    sets: list[tuple[Path, ...]] = []
    for accepted in task.files.names[split]:
        members = (accepted,) if isinstance(accepted, str) else accepted
        matches = [_matches(folder, member) for member in members]
        if not all(matches):
            continue
        if len(members) == 1 and "*" not in members[0]:
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


def _matches(folder: Path, name: str) -> list[Path]:
    if "*" in name:
        return sorted(path for path in folder.glob(name) if path.is_file())
    if Path(name).suffix:
        return [folder / name] if (folder / name).is_file() else []
    endings = (*JSON_ENDINGS, *TABLES)
    return [path for end in endings if (path := folder / f"{name}{end}").is_file()]


def _said(accepted: str | tuple[str, ...]) -> str:
    return accepted if isinstance(accepted, str) else " with ".join(accepted)


def _fingerprint(paths: tuple[Path, ...]) -> str:
    if len(paths) == 1:
        return input_sha256(paths[0])
    return hashlib.sha256("".join(map(input_sha256, paths)).encode()).hexdigest()


def checked_rows(task: Task, file: SplitFile, bad: list[str] | None = None) -> Iterator[Row]:
    """Yield a split's rows as they are on disk, checked.

    The first bad row raises UserError, unless a list is given to collect their messages.
    """
    for _, rows, _ in records_with_rows(task, file, bad):
        yield from rows


def records_with_rows(
    task: Task, file: SplitFile, bad: list[str] | None = None
) -> Iterator[tuple[Any, list[Row], int]]:
    """Yield each official record with its checked rows and how many of them were bad."""
    check = row_checker(task, file)
    number = 0
    for where, record in official_records(task, file):
        own = record.get("id") if isinstance(record, dict) else None
        found, kept = list(rows_of(task, where, record)), []
        for nth, row in enumerate(found):
            try:
                if isinstance(row, BadRow):
                    raise UserError(row.message)
                if not isinstance(row, dict):
                    raise UserError(f"{where}: rows() of task {task.name} gave no dict.")
                standing = number if own is None else own if len(found) == 1 else f"{own}-{nth}"
                name = str(row.get("id", standing))
                checked = {"id": name if _is_utf8(name) else str(number), **check(where, row)}
            except UserError as error:
                if bad is None:
                    raise UserError(
                        f"{error} Mend it, or drop it with --skip-bad-rows (tune, bench)."
                    ) from None
                bad.append(str(error))
            else:
                kept.append(checked)
            number += 1
        yield record, kept, len(found) - len(kept)


def official_records(task: Task, file: SplitFile) -> Iterator[tuple[str, Any]]:
    """The records of a split's files as the reader gives them, with their places."""
    if task.files.read is not None:
        where = str(file.path)
        try:
            for where, record in task.files.read(file.paths, file.split):
                yield where, record
        except UserError:
            raise
        except Exception as error:  # a task file's own code
            raise UserError(
                f"{where}: read() of task {task.name} failed here or behind it: {_said_by(error)}."
            ) from error
        return
    for path in file.paths:
        yield from records(path, task.files.columns, task.files.aliases)


def rows_of(task: Task, where: str, record: Any) -> Iterable[Row | BadRow]:
    """The rows of one official record; a record that is wrong is one BadRow."""
    if isinstance(record, BadRow):
        return [record]
    if task.files.rows is None:
        if isinstance(record, dict):
            return [{task.files.aliases.get(key, key): value for key, value in record.items()}]
        said = f"expected one JSON object a line, found {type(record).__name__}"
        return [BadRow(f"{where}: {said}.")]
    try:
        return list(task.files.rows(record))
    except KeyError as error:
        said = f"no field {error}"
    except ValueError as error:
        said = str(error)
    except (TypeError, IndexError, AttributeError) as error:
        said = f"not of the official form ({error})"
    except Exception as error:  # a task file's own code
        said = f"rows() failed: {_said_by(error)}"
    return [BadRow(f"{where}: {said} (task {task.name}).")]


def _said_by(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def row_checker(task: Task, file: SplitFile) -> Callable[[str, Row], Row]:
    """A function that returns a row's columns and target, or raises UserError."""
    files, answer, split = task.files, task.answer, file.split
    structures, texts, hidden = set(files.structures), set(files.texts), set(task.hidden)
    unanswered = split == "test"

    def check(where: str, row: Row) -> Row:
        checked: Row = {}
        answered = row.get(answer.column) is not None
        for name in files.columns:
            value = row.get(name)
            if value is None and not (unanswered and not answered and name in hidden):
                lacks = ", ".join(_companions(task, file)) if name in hidden else ""
                beside = f"; it may be in {lacks}, which is not beside this file" if lacks else ""
                raise UserError(f"{where}: no field '{name}' (task {task.name}){beside}.")
            if name == answer.column:
                continue
            if value is None or name in structures:
                if value is not None and not _is_utf8(as_json(value)):
                    raise UserError(f"{where}: '{name}' holds half a surrogate pair (a cut emoji).")
                checked[name] = value
            elif name in texts:
                if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
                    said = f"{where}: '{name}' is {_short(value)}, expected a list of texts"
                    raise UserError(f"{said} (task {task.name}).")
                for text in value:
                    _check_text(task, where, name, text)
                checked[name] = value
            else:
                _check_text(task, where, name, value)
                checked[name] = value
        value = row.get(answer.column)
        checked["target"] = None if value is None else _target(task, where, value, checked, split)
        return checked

    return check


def _check_text(task: Task, where: str, name: str, value: object) -> None:
    if not isinstance(value, str):
        raise UserError(f"{where}: '{name}' is {_short(value)}, expected text (task {task.name}).")
    if not _is_utf8(value):
        raise UserError(f"{where}: '{name}' holds half a surrogate pair (a cut emoji).")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(value: object) -> str:
    said = repr(value)
    return said if len(said) <= 60 else said[:57] + "..."


def _target(task: Task, where: str, value: Any, row: Row, split: str) -> Any:
    """The answer as it is used: an option's number, grades, or a text."""
    answer = task.answer
    name = f"{where}: {answer.column}"
    if isinstance(answer, Choice):
        return _label(answer, name, value, task.name)
    if isinstance(answer, Options):
        n = len(row[answer.options])
        if not 2 <= n <= answer.most:
            raise UserError(
                f"{where}: {counted(n, 'option')}, expected 2 to {answer.most} ({task.name})."
            )
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < n:
            raise UserError(f"{name} is {_short(value)}, expected 0 to {n - 1} ({task.name}).")
        return value
    if isinstance(answer, Rank):
        n = len(row[answer.options])
        numbers = isinstance(value, list) and all(
            isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v < 1e9 for v in value
        )
        if not n or not numbers or len(value) != n:
            raise UserError(
                f"{name} is {_short(value)}, expected {n} numbers from 0, one a document "
                f"({task.name})."
            )
        if split == "train" and (n < 2 or min(value) == max(value)):
            raise UserError(f"{name}: training needs a better and a worse document ({task.name}).")
        return [float(v) for v in value]
    _check_text(task, where, answer.column, value)
    return value


def _label(answer: Choice, where: str, value: object, task: str) -> int:
    labels = answer.labels
    said = None if isinstance(value, bool | float) else str(value).strip()
    for index, label in enumerate(labels):
        if said == str(label):
            return index
    expected = " or ".join(map(str, labels)) if len(labels) < 6 else f"one of {len(labels)} labels"
    raise UserError(f"{where} is {_short(value)}, expected {expected} (task {task}).")


def gold(task: Task, row: Row) -> Any:
    """What metrics compare a prediction with: a label, an option's number, grades, gold's value."""
    answer, target = task.answer, row["target"]
    if target is None:
        return None
    if isinstance(answer, Choice):
        return answer.labels[target]
    hidden = getattr(answer, "gold", "")
    return row[hidden] if hidden and hidden != answer.column else target


def parsed(task: Task, text: str, row: Row) -> Any:
    """What the task's parser reads in a text; None where it cannot."""
    parse = getattr(task.answer, "parse", None)
    if parse is None:
        return text
    try:
        return parse(text, row)
    except ValueError:
        return None
    except Exception as error:  # a task file's own code
        raise UserError(
            f"parse() of task {task.name} failed on the text {text[:40]!r}: "
            f"{type(error).__name__}: {error}."
        ) from error


def as_json(value: Any) -> str:
    """A structure as it is stored."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
