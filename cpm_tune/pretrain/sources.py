"""Named sources of text, and their files as streams of documents: no file is read whole."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, fields
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass

from cpm_tune.common.faults import faults
from cpm_tune.common.reading import parse_json, read_json
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.pretrain.filters import LOST, Rules

MAX_DOCUMENT = 10_000_000
MAX_WEIGHT = 1e9  # weights are shares; sums of far greater ones are not finite
Weight = Annotated[float, Field(gt=0, le=MAX_WEIGHT, allow_inf_nan=False)]
_SURROGATE = re.compile("[\ud800-\udfff]")
_NAME = re.compile(r"(?![\s.])[^/\\=:\x00-\x1f\x7f\ud800-\udfff]+(?<![\s.])")
_LONGEST_NAME = 200  # bytes; file names have 255


class Document(NamedTuple):
    """A text; its paragraphs are its lines. `id` decides its split and is unique in a source."""

    id: str
    text: str


@dataclass(frozen=True)
class TextSource:
    """A named group of files with one weight, one split and one set of rules.

    `weight` is its share of the training rows (normalised over all sources). `heldout` is the share
    of documents kept from training. Raises pydantic's ValidationError for a number out of range.
    """

    name: str
    files: tuple[Path, ...]
    weight: Weight = 1.0
    heldout: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.01
    rules: Rules = field(default_factory=Rules)


def sources_of_files(paths: Sequence[Path], settings: Mapping[str, str]) -> list[TextSource]:
    """A source per file, named after its stem. `settings` as for `read_sources`."""
    names = [path.stem for path in paths]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise UserError(
                f"{paths[number]}: an earlier file is already the source '{name}'. Rename one, "
                "or list both in a --sources file."
            )
    _check_settings(settings, names)
    return [
        _source(name, [path], _settings_of(name, settings), str(path))
        for name, path in zip(names, paths, strict=True)
    ]


def read_sources(path: Path, settings: Mapping[str, str]) -> list[TextSource]:
    """Read a sources file: {"sources": {NAME: {"files": [...], "weight": ..., RULE: ...}}}.

    Files are relative to the sources file. `settings` are overrides, RULE=VALUE for all sources or
    NAME.RULE=VALUE for one.
    """
    try:
        listed = read_json(path, unique_keys=True)["sources"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
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
        raise UserError(f"{path} contains no sources.")
    return result


def _check_settings(settings: Mapping[str, str], names: Sequence[str]) -> None:
    for key in settings:
        name, dot, _ = key.rpartition(".")
        if dot and name not in names:
            raise UserError(f"--set {key}: there is no such source.{did_you_mean(name, names)}")


def _settings_of(name: str, settings: Mapping[str, str]) -> dict[str, str]:
    """The settings for all sources, and over them those for this one."""
    parts = [(*key.rpartition("."), value) for key, value in settings.items()]
    return {
        setting: value
        for wanted in (("", ""), (name, "."))
        for *owner, setting, value in parts
        if tuple(owner) == wanted
    }


def _source(name: str, files: list[Path], values: dict[str, Any], where: str) -> TextSource:
    if not _NAME.fullmatch(name) or len(name.encode()) > _LONGEST_NAME:
        raise UserError(
            f"{where}: '{name}' cannot name a source: at most {_LONGEST_NAME} bytes of UTF-8, "
            "without . or white space at the ends, and without / \\ = : and control characters."
        )
    rules = {rule.name for rule in fields(Rules)}
    known = {"weight", "heldout"} | rules
    for key in values:
        if key not in known:
            raise UserError(
                f"{where}: source '{name}': there is no setting '{key}'.{did_you_mean(key, known)}"
            )
    try:
        limits = Rules(**{key: value for key, value in values.items() if key in rules})
        settings = {key: value for key, value in values.items() if key not in rules}
        return TextSource(name, tuple(files), rules=limits, **settings)
    except ValidationError as error:
        raise UserError(f"{where}: source '{name}': {'; '.join(faults(error))}.") from error


def check_files(sources: Iterable[TextSource]) -> None:
    """Raise UserError for a file that cannot be read, before hours are spent on the others."""
    for source in sources:
        for file in source.files:
            if not file.exists() or file.is_dir() or not os.access(file, os.R_OK):
                fault = "not readable" if file.exists() else "does not exist"
                fault = "a folder" if file.is_dir() else fault
                raise UserError(
                    f"{file}: {fault}, expected a text or jsonl file (source '{source.name}')."
                )


def documents(source: TextSource) -> Iterator[Document]:
    """Yield a source's documents in file order.

    .jsonl: an object with "text" and an optional "id" per line. Anything else is UTF-8 text whose
    documents are separated by blank lines. Raises UserError naming file and line for binary
    or empty files.
    """
    for path in source.files:
        read = _jsonl if path.suffix in (".jsonl", ".json") else _text
        empty = True
        for document in read(path):
            empty = False
            yield document
        if empty:
            raise UserError(f"{path} contains no text. Remove it from the sources.")


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
            row = parse_json(line)
            text = row["text"]
        except (ValueError, KeyError, TypeError) as error:
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
