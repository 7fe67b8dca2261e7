"""Named sources of text and how their files are read: a stream of documents, never a whole file."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.pretrain.filters import LOST, SHARES, Rules

MAX_DOCUMENT = 10_000_000
MAX_WEIGHT = 1e9  # weights are shares; sums of far greater ones are not finite
_SURROGATE = re.compile("[\ud800-\udfff]")
_NAME = re.compile(r"(?![\s.])[^/\\=:\x00-\x1f\x7f\ud800-\udfff]+(?<![\s.])")
_LONGEST_NAME = 200  # bytes; file names have 255


class Document(NamedTuple):
    """A text; its paragraphs are its lines. `id` decides its split and is unique in a source."""

    id: str
    text: str


@dataclass(frozen=True)
class Source:
    """A named group of files with one weight, one split and one set of rules.

    `weight` is its share of the training rows (normalised over all sources). `heldout` is the share
    of documents kept from training.
    """

    name: str
    files: tuple[Path, ...]
    weight: float = 1.0
    heldout: float = 0.01
    rules: Rules = field(default_factory=Rules)


def sources_of_files(paths: Sequence[Path], settings: Mapping[str, str]) -> list[Source]:
    """A source per file, named after its stem. `settings` as for `read_sources`."""
    names = [path.stem for path in paths]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise UserError(
                f"{paths[number]}: a file before it makes the source '{name}', too; rename one, or "
                "list both in a --sources file."
            )
    _check_settings(settings, names)
    return [
        _source(name, [path], _settings_of(name, settings), str(path))
        for name, path in zip(names, paths, strict=True)
    ]


def read_sources(path: Path, settings: Mapping[str, str]) -> list[Source]:
    """Read a sources file: {"sources": {NAME: {"files": [...], "weight": ..., RULE: ...}}}.

    Files are relative to the sources file. `settings` are overrides, RULE=VALUE for all sources or
    NAME.RULE=VALUE for one.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        listed = json.loads(text, object_pairs_hook=_without_repeats)["sources"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f'{path}: not a sources file ({error}); expected {{"sources": {{NAME: {{"files": '
            "[...]}}}."
        ) from error
    result = []
    _check_settings(settings, [name for name, _ in listed])
    for name, entry in listed:
        files = entry.get("files") if isinstance(entry, dict) else None
        if not (isinstance(files, list) and files and all(isinstance(f, str) for f in files)):
            raise UserError(f"{path}: source '{name}' needs a list 'files' of names.")
        values = {key: value for key, value in entry.items() if key != "files"}
        values |= _settings_of(name, settings)
        result.append(_source(name, [path.parent / file for file in files], values, str(path)))
    if not result:
        raise UserError(f"{path}: no sources in it.")
    return result


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"'{next(k for k in keys if keys.count(k) > 1)}' is there twice")
    return result


def _check_settings(settings: Mapping[str, str], names: Sequence[str]) -> None:
    for key in settings:
        name, dot, _ = key.rpartition(".")
        if dot and name not in names:
            raise UserError(f"--set {key}: no such source.{did_you_mean(name, names)}")


def _settings_of(name: str, settings: Mapping[str, str]) -> dict[str, str]:
    """The settings for all sources, and over them those for this one."""
    parts = [(*key.rpartition("."), value) for key, value in settings.items()]
    return {
        setting: value
        for wanted in (("", ""), (name, "."))
        for *owner, setting, value in parts
        if tuple(owner) == wanted
    }


def _source(name: str, files: list[Path], values: dict[str, Any], where: str) -> Source:
    if not _NAME.fullmatch(name) or len(name.encode()) > _LONGEST_NAME:
        raise UserError(
            f"{where}: '{name}' cannot name a source: at most {_LONGEST_NAME} bytes of UTF-8, "
            "without . or white space at the ends, and without / \\ = : and control characters."
        )
    own = {"weight", "heldout"}
    known = own | {f.name for f in fields(Rules)}
    for key in values:
        if key not in known:
            raise UserError(
                f"{where}: source '{name}': no setting '{key}'.{did_you_mean(key, known)}"
            )
    numbers = {}
    for key, value in values.items():
        number = _number(value)
        most = 1 if key in SHARES else math.inf
        if not (math.isfinite(number) and 0 <= number <= most):
            expected = "a number from 0 to 1" if key in SHARES else "a finite number from 0 on"
            raise UserError(f"{where}: source '{name}': {key} is {value!r}, expected {expected}.")
        numbers[key] = number
    rules = Rules(**{key: value for key, value in numbers.items() if key not in own})
    source = Source(
        name, tuple(files), numbers.get("weight", 1.0), numbers.get("heldout", 0.01), rules
    )
    if not (0 < source.weight <= MAX_WEIGHT and source.heldout < 1):
        raise UserError(
            f"{where}: source '{name}': weight must be > 0 and at most {MAX_WEIGHT:g}, heldout in "
            "[0, 1)."
        )
    return source


def _number(value: Any) -> float:
    """The number that a setting is or spells; NaN if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def check_files(sources: Iterable[Source]) -> None:
    """Raise UserError for a file that is not there, before hours are spent on those before it."""
    for source in sources:
        for file in source.files:
            if not file.exists() or file.is_dir() or not os.access(file, os.R_OK):
                fault = "not readable" if file.exists() else "not there"
                fault = "a folder" if file.is_dir() else fault
                raise UserError(
                    f"{file}: {fault}, expected a text or jsonl file (source '{source.name}')."
                )


def documents(source: Source) -> Iterator[Document]:
    """Yield a source's documents in file order.

    .jsonl: an object with "text" (and, if there is one, "id") a line. Anything else is UTF-8 text
    whose documents are separated by blank lines. Raises UserError naming file and line for binary
    or empty files.
    """
    for path in source.files:
        found = False
        read = _jsonl if path.suffix in (".jsonl", ".json") else _text
        for document in read(path):
            found = True
            yield document
        if not found:
            raise UserError(f"{path}: there is no text in it; remove it from the sources.")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with path.open("rb") as file:
            while raw := file.readline(MAX_DOCUMENT + 1):
                number += 1
                if b"\0" in raw:
                    raise UserError(f"{path}:{number}: a binary file, expected UTF-8 text.")
                if len(raw) > MAX_DOCUMENT:
                    raise UserError(
                        f"{path}:{number}: a line of more than {MAX_DOCUMENT:,} bytes; split the "
                        "document."
                    )
                yield number, raw.decode("utf-8").removeprefix("\ufeff").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}:{number}: not UTF-8 text ({error.reason}).") from error
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror}).") from error


def _jsonl(path: Path) -> Iterator[Document]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text = row["text"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f'{path}:{number}: expected an object with "text" on each line '
                f"({type(error).__name__})."
            ) from error
        if not isinstance(text, str):
            raise UserError(f'{path}:{number}: "text" is {type(text).__name__}, expected a string.')
        given = row.get("id")  # null is none
        identity = f"{path.name}:{number}" if given is None else str(given)
        # JSON can escape half a surrogate pair, which no encoding can write
        yield Document(_SURROGATE.sub(LOST, identity), _SURROGATE.sub(LOST, text))


def _text(path: Path) -> Iterator[Document]:
    block: list[str] = []
    size = start = 0
    for number, line in _lines(path):
        if line.strip() and size < MAX_DOCUMENT:
            start = start or number
            block.append(line)
            size += len(line)
        elif block:
            yield Document(f"{path.name}:{start}", "\n".join(block))
            block, size, start = ([line], len(line), number) if line.strip() else ([], 0, 0)
    if block:
        yield Document(f"{path.name}:{start}", "\n".join(block))
