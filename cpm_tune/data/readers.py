"""Readers of the formats of official files: records, each with its place in the file.

Every reader yields (place, record or BadRow), the place being "file:line" or "file: item n". If a
file cannot be read beyond some point, that is a UserError. Memory does not grow with the file.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cpm_tune.common.reading import MAX_JSON_DEPTH, parse_json
from cpm_tune.common.sizes import counted
from cpm_tune.errors import UserError
from cpm_tune.task import BadRow

JSON_ENDINGS = (".jsonl", ".json", ".jsonline")
TABLES = {".tsv": "\t", ".txt": "\t", ".csv": ","}
_GZIP = b"\x1f\x8b"
Records = Iterator[tuple[str, Any]]


def records(
    path: Path,
    columns: tuple[str, ...],
    aliases: Mapping[str, str],
    optional: tuple[str, ...] = (),
) -> Records:
    """The records of a file, by its ending and its first character: one JSON object per line, one
    JSON array, or a table with or without header. `optional` columns of a table may be missing."""
    if path.suffix in TABLES:
        return table(path, columns, aliases, optional)
    return json_items(path) if starts_with(path) == "[" else json_lines(path)


def starts_with(path: Path) -> str:
    """The first character of a text file that is not blank ("" if there is none)."""
    with path.open("rb") as file:
        head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    return chr(head[0]) if head else ""


def lines(path: Path) -> Records:
    """The lines of a UTF-8 text file without their ends; blank lines too."""
    with path.open("rb") as file:
        yield from decoded(file, str(path))


def decoded(raw_lines: Iterable[bytes], name: str) -> Records:
    """The lines of a stream of bytes, as `lines` gives them; `name` stands for the path."""
    for number, raw in enumerate(raw_lines, start=1):
        where = f"{name}:{number}"
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            packed = number == 1 and raw.startswith(_GZIP)
            fix = "it is gzip-compressed; unpack it" if packed else "convert the file to UTF-8"
            yield where, BadRow(f"{where}: not UTF-8 text; {fix}.")
        else:
            yield where, text.rstrip("\r\n")


def json_lines(path: Path) -> Records:
    """One JSON value per line; blank lines are skipped."""
    for where, text in lines(path):
        if isinstance(text, BadRow):
            yield where, text
        elif text.strip():
            try:
                value = parse_json(text)
            except ValueError as error:
                reason = str(error).split(":")[0]
                yield where, BadRow(f"{where}: not a whole JSON object on one line ({reason}).")
            else:
                yield where, value


def json_items(path: Path, key: str = "") -> Records:
    """The items of an array in a JSON document, one after the other.

    The array is the document itself, or the value of `key` in the document's object.
    """
    import ijson
    from ijson.common import ObjectBuilder

    # The fast backend replaces half a surrogate pair by another character; the slow one keeps it.
    backend = ijson.get_backend("python") if _has_surrogate_escapes(path) else ijson
    item = f"{key}.item" if key else "item"
    number, depth, inside, exists, builder = 0, 0, False, False, ObjectBuilder()
    with path.open("rb") as file:
        try:
            if file.read(3) != b"\xef\xbb\xbf":
                file.seek(0)
            for prefix, event, value in backend.parse(file, use_float=True):
                depth += event.startswith("start_") - event.startswith("end_")
                if depth > MAX_JSON_DEPTH:
                    raise ValueError(f"nested more than {MAX_JSON_DEPTH} levels deep")
                if prefix == key and event in ("start_array", "end_array"):
                    inside = event == "start_array" and depth == (2 if key else 1)
                    exists |= inside
                elif inside:
                    builder.event(event, value)
                    if prefix == item and event not in ("start_map", "start_array", "map_key"):
                        number += 1
                        yield f"{path}: item {number}", builder.value
                        builder = ObjectBuilder()
        except (ijson.JSONError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{path}: not a whole JSON document after item {number} ({reason})."
            ) from error
    if not exists:
        form = f'an object with an array "{key}"' if key else "an array"
        raise UserError(f"{path}: expected {form}, found none.")


def _has_surrogate_escapes(path: Path) -> bool:
    """Whether a \\ud8xx to \\udfxx is written anywhere in the file."""
    tail = b""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            if b"\\ud" in (block := (tail + block).lower()):
                return True
            tail = block[-2:]
    return False


def table(
    path: Path,
    columns: tuple[str, ...],
    aliases: Mapping[str, str],
    optional: tuple[str, ...] = (),
) -> Records:
    """The rows of a .tsv, .txt (tab) or .csv file as dicts by column.

    The first row is a header if one of its cells names a column. A table may lack `optional`
    columns, all of them where it has no header; an empty cell of theirs is None.
    """
    delimiter = TABLES[path.suffix]
    header: list[str] | None = None
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(
            file,
            delimiter=delimiter,
            quoting=csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE,
            strict=True,
        )
        while True:
            try:
                cells = next(reader, None)
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}: not UTF-8 text after line {reader.line_num}; convert it to UTF-8."
                ) from error
            except csv.Error as error:
                raise UserError(
                    f"{path}:{reader.line_num}: not a readable row ({error})."
                ) from error
            if cells is None:
                return
            if not any(cells):
                continue
            where = f"{path}:{reader.line_num}"
            if header is None:
                header = _header(path, cells, columns, aliases, optional)
                if header is not None:
                    continue
                header = [name for name in columns if name not in optional]
                if len(cells) != len(header):
                    header = list(columns)
            if len(cells) != len(header):
                names = ", ".join(header)
                message = (
                    f"{where}: {counted(len(cells), 'column')}, expected {len(header)} ({names})."
                )
                yield where, BadRow(message)
            else:
                row = zip(header, cells, strict=True)
                yield where, {k: None if k in optional and not v.strip() else v for k, v in row}


def _header(
    path: Path,
    cells: list[str],
    columns: tuple[str, ...],
    aliases: Mapping[str, str],
    optional: tuple[str, ...],
) -> list[str] | None:
    """Return the columns if the first row is a header, None if it is data."""
    names = [aliases.get(cell.strip(), cell.strip()) for cell in cells]
    if not set(names) & set(columns):
        return None
    missing = [name for name in columns if name not in (*names, *optional)]
    if missing:
        raise UserError(
            f"{path}:1: no column '{missing[0]}' in the header ({', '.join(cells)}), expected "
            f"{', '.join(columns)}."
        )
    return names
