"""Readers of the formats of official files: records, each with its place in the file.

Every reader yields (place, record or BadRow), the place being "file:line" or "file: item n". If a
file cannot be read beyond some point, that is a UserError. Memory does not grow with the file.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from cpm_tune.common.reading import MAX_JSON_DEPTH, parse_json
from cpm_tune.data.lines import Records, check_encoding, decoded, lines, not_utf8
from cpm_tune.data.tables import TABLES, Layout, table
from cpm_tune.errors import UserError
from cpm_tune.task import BadRow

__all__ = (
    "JSON_ENDINGS",
    "TABLES",
    "Layout",
    "Records",
    "decoded",
    "json_items",
    "json_lines",
    "json_objects",
    "lines",
    "records",
    "records_of",
    "starts_with",
    "table",
)

JSON_ENDINGS = (".jsonl", ".json", ".jsonline")
_LONGEST_OBJECT = 100_000  # lines of a JSON object that is written over several lines
_MARK = re.compile("[\udc80-\udcff]")  # stands for a byte that is not UTF-8


def records(
    path: Path,
    columns: tuple[str, ...],
    aliases: Mapping[str, str],
    optional: tuple[str, ...] = (),
    layout: Layout | None = None,
) -> Records:
    """The records of a file, by its ending and how it begins: one JSON object per line, JSON
    objects of several lines each, one JSON array, or a table with or without header. `optional`
    columns of a table may be missing; what is odd about one is noted in `layout`."""
    if path.suffix in TABLES:
        return table(path, columns, aliases, optional, layout)
    if starts_with(path) == "[":
        return json_items(path)
    first = next((text for _, text in lines(path) if isinstance(text, BadRow) or text.strip()), "")
    indented = isinstance(first, str) and first.strip() == "{"
    return json_objects(path) if indented else json_lines(path)


def records_of(
    paths: tuple[Path, ...],
    columns: tuple[str, ...],
    aliases: Mapping[str, str],
    optional: tuple[str, ...] = (),
    layout: Layout | None = None,
) -> Records:
    """The records of several files, one after the other. Raises UserError for one that is empty."""
    return in_turn(paths, lambda path: records(path, columns, aliases, optional, layout))


def in_turn(paths: tuple[Path, ...], read: Callable[[Path], Records]) -> Records:
    """What `read` gives of each file, one after the other. Raises UserError for one of several that
    is empty."""
    for path in paths:
        empty = True
        for where, record in read(path):
            empty = False
            yield where, record
        if empty and len(paths) > 1:
            raise UserError(f"{path}: the file is empty; get it again.")


def starts_with(path: Path) -> str:
    """The first character of a text file that is not blank ("" if there is none)."""
    with path.open("rb") as file:
        head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    return chr(head[0]) if head else ""


def json_lines(path: Path) -> Records:
    """One JSON value per line; blank lines are skipped."""
    for where, text in lines(path):
        if isinstance(text, BadRow):
            yield where, text
        elif text.strip():
            try:
                value = parse_json(text, unique_keys=True)
            except ValueError as error:
                reason = str(error).split(":")[0]
                yield where, BadRow(f"{where}: not a whole JSON object on one line ({reason}).")
            else:
                yield where, value


def json_objects(path: Path) -> Records:
    """JSON objects one after the other, each over several lines from one that is { to one that
    begins with }; the place is an object's first line."""
    place, parts, bad = "", list[str](), None
    for where, text in lines(path):
        if not parts and not isinstance(text, BadRow) and not text.strip(" \t,"):
            continue
        place = place if parts else where
        bad = bad or (text if isinstance(text, BadRow) else None)
        parts.append("" if isinstance(text, BadRow) else text)
        if parts[-1].startswith("}") or len(parts) > _LONGEST_OBJECT:
            yield place, bad or _object(place, parts)
            parts, bad = [], None
    if parts:
        yield place, bad or _object(place, parts)


def _object(where: str, parts: list[str]) -> Any:
    try:
        return parse_json("\n".join(parts).rstrip(" \t,"), unique_keys=True)
    except ValueError as error:
        reason = str(error).split(":")[0]
        return BadRow(f"{where}: not a whole JSON object from this line on ({reason}).")


def json_items(path: Path, key: str = "") -> Records:
    """The items of an array in a JSON document, one after the other.

    The array is the document itself, or the value of `key` in the document's object.
    """
    import ijson
    from ijson.common import ObjectBuilder

    broken = check_encoding(path)
    # The fast backend replaces half a surrogate pair by another character; the slow one keeps it.
    slow = broken or _has_surrogate_escapes(path)
    backend = ijson.get_backend("python") if slow else ijson
    outside = 2 if key else 1  # the depth between items
    number, depth, name, inside, exists, builder = 0, 0, "", False, False, ObjectBuilder()
    keys, twice = set[str](), ""  # of an item
    with path.open("rb") as file:
        try:
            if file.read(3) != b"\xef\xbb\xbf":
                file.seek(0)
            source = _Marked(file) if broken else file
            for event, value in backend.basic_parse(source, use_float=True):
                depth += event.startswith("start_") - event.startswith("end_")
                if depth > MAX_JSON_DEPTH:
                    raise ValueError(f"nested more than {MAX_JSON_DEPTH} levels deep")
                if event == "map_key" and depth == 1:
                    name = value
                elif event == "start_array" and depth == outside and not inside and name == key:
                    inside = exists = True
                elif event == "end_array" and depth < outside:
                    inside = False
                elif inside:
                    if event == "map_key" and depth == outside + 1:
                        twice, keys = twice or value * (value in keys), {*keys, value}
                    builder.event(event, value)
                    if depth == outside and event not in ("start_map", "start_array", "map_key"):
                        number += 1
                        where = f"{path}: item {number}"
                        bad = BadRow(f"{where}: '{twice}' is there twice.") if twice else None
                        yield where, bad or _unmarked(builder.value, path, where, broken)
                        builder, keys, twice = ObjectBuilder(), set[str](), ""
        except (ijson.JSONError, ValueError) as error:
            reason = str(error).splitlines()[0]
            if broken:
                reason += f"; line {broken} is not UTF-8 text"
            raise UserError(
                f"{path}: not a whole JSON document after item {number} ({reason})."
            ) from error
    if not exists:
        form = f'an object with an array "{key}"' if key else "an array"
        raise UserError(f"{path}: expected {form}, found none.")


class _Marked:
    """A file of bytes in which a lone surrogate's JSON escape stands for each byte that is not
    UTF-8, so that a document can be read around them."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode

    def read(self, size: int = -1) -> bytes:
        """The next bytes, about that many; b"" at the end."""
        while block := self._file.read(size) if size else b"":
            if text := self._decode(block):
                return _MARK.sub(lambda mark: f"\\u{ord(mark[0]):04x}", text).encode()
        return b""


def _unmarked(value: Any, path: Path, where: str, broken: int) -> Any:
    """The item, or a BadRow if bytes of it were not UTF-8."""
    if broken and _MARK.search(json.dumps(value, ensure_ascii=False)):
        with path.open("rb") as file:
            raw = next(raw for number, raw in enumerate(file, start=1) if number == broken)
        first = not_utf8(raw, f"{path}:{broken}").message
        return BadRow(f"{where}: not UTF-8 text. The first such line: {first}")
    return value


def _has_surrogate_escapes(path: Path) -> bool:
    """Whether a \\ud8xx to \\udfxx is written anywhere in the file."""
    tail = b""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            if b"\\ud" in (block := (tail + block).lower()):
                return True
            tail = block[-2:]
    return False
