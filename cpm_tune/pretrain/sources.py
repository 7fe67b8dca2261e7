"""Named sources of text and how their files are read: a stream of documents, never a whole file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.pretrain.filters import Rules

MAX_DOCUMENT = 10_000_000


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


def sources_of_files(paths: Iterable[Path], settings: Mapping[str, str]) -> list[Source]:
    """A source per file, named after its stem, all with the same settings."""
    return [_source(path.stem, [path], dict(settings), str(path)) for path in paths]


def read_sources(path: Path, settings: Mapping[str, str]) -> list[Source]:
    """Read a sources file: {"sources": {NAME: {"files": [...], "weight": ..., RULE: ...}}}.

    Files are relative to the sources file. `settings` are overrides, RULE=VALUE for all sources or
    NAME.RULE=VALUE for one.
    """
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["sources"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{path}: not a sources file ({error}); expected {{"sources": {{NAME: {{"files": '
            "[...]}}}."
        ) from error
    result = []
    names = {name for name, _ in listed}
    for key in settings:
        if "." in key and key.split(".")[0] not in names:
            raise UserError(f"--set {key}: no such source.{did_you_mean(key.split('.')[0], names)}")
    for name, entry in listed:
        if not isinstance(entry, dict) or not isinstance(entry.get("files"), list):
            raise UserError(f"{path}: source '{name}' needs a list 'files'.")
        values = {key: value for key, value in entry.items() if key != "files"}
        values |= {k: v for k, v in settings.items() if "." not in k}
        values |= {k.split(".", 1)[1]: v for k, v in settings.items() if k.startswith(name + ".")}
        files = [path.parent / file for file in entry["files"]]
        result.append(_source(name, files, values, str(path)))
    if not result:
        raise UserError(f"{path}: no sources in it.")
    return result


def _source(name: str, files: list[Path], values: dict[str, Any], where: str) -> Source:
    own = {"weight", "heldout"}
    known = own | {f.name for f in fields(Rules)}
    for key in values:
        if key not in known:
            raise UserError(
                f"{where}: source '{name}': no setting '{key}'{did_you_mean(key, known)}"
            )
    try:
        numbers = {key: float(value) for key, value in values.items()}
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: source '{name}': {error}.") from error
    rules = Rules(**{key: value for key, value in numbers.items() if key not in own})
    source = Source(
        name, tuple(files), numbers.get("weight", 1.0), numbers.get("heldout", 0.01), rules
    )
    if not (source.weight > 0 and 0 <= source.heldout < 1):
        raise UserError(f"{where}: source '{name}': weight must be > 0 and heldout in [0, 1).")
    return source


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
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'{path}:{number}: expected an object with "text" ({type(error).__name__}).'
            ) from error
        if not isinstance(text, str):
            raise UserError(f'{path}:{number}: "text" is {type(text).__name__}, expected a string.')
        yield Document(str(row.get("id", f"{path.name}:{number}")), text)


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
