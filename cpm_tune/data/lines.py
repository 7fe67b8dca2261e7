"""Lines of text files in UTF-8; text in another encoding is named with its line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cpm_tune.errors import UserError
from cpm_tune.task import BadRow

Records = Iterator[tuple[str, Any]]
_PACKED = {b"\x1f\x8b": "gzip-compressed", b"PK\x03\x04": "a zip archive or a workbook"}
_NUL = "NUL bytes; the file is damaged, get it again."
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def lines(path: Path) -> Records:
    """The lines of a UTF-8 text file without their ends; blank lines too."""
    with path.open("rb") as file:
        yield from decoded(file, str(path))


def decoded(raw_lines: Iterable[bytes], name: str) -> Records:
    """The lines of a stream of bytes, as `lines` gives them; `name` stands for the path."""
    for number, raw in enumerate(raw_lines, start=1):
        text, bad = _text(raw, name, number)
        yield f"{name}:{number}", text.rstrip("\r\n") if bad is None else bad


def numbered(path: Path) -> Iterator[tuple[int, str, BadRow | None]]:
    """The lines of a text file with their numbers and ends, which may be carriage returns alone.
    A line that is not UTF-8 comes with what is wrong, and marks for what cannot be read."""
    number = 0
    with path.open("rb") as file:
        for at, raw in enumerate(file, start=1):
            text, bad = _text(raw, str(path), at)
            for line in [text] if "\r" not in text[:-2] else _LINE.findall(text):
                number += 1
                yield number, line, bad


def check_encoding(path: Path) -> int:
    """The number of the first line of a file that is not UTF-8; 0 if all are.

    Raises UserError if the file is packed, in UTF-16, or has NUL bytes.
    """
    import codecs

    decode = codecs.getincrementaldecoder("utf-8")().decode
    nul = False
    with path.open("rb") as file:
        refuse_other_kinds(file.read(4), f"{path}:1")
        file.seek(0)
        try:
            while block := file.read(1 << 20):
                decode(block)
                nul |= b"\0" in block
            decode(b"", final=True)
        except UnicodeDecodeError:
            file.seek(0)
            return next((n for n, raw in enumerate(file, 1) if _text(raw, "", n)[1]), 0)
        if nul:
            file.seek(0)
            number = next(n for n, raw in enumerate(file, 1) if b"\0" in raw)
            raise UserError(f"{path}:{number}: {_NUL}")
    return 0


def refuse_other_kinds(start: bytes, where: str) -> None:
    """Raise UserError if a file's first bytes are those of a packed file or of UTF-16."""
    for mark, kind in _PACKED.items():
        if start.startswith(mark):
            raise UserError(f"{where}: not UTF-8 text; it is {kind}; unpack it.")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start[:4]:
        raise UserError(
            f"{where}: not UTF-8 text; it looks like UTF-16; convert the file to UTF-8."
        )


def not_utf8(raw: bytes, where: str) -> BadRow:
    """What is wrong with a line that is not UTF-8, with the encoding that it seems to have."""
    looks = ""
    try:
        text = raw.decode("gb18030")
    except UnicodeDecodeError:
        pass
    else:
        if re.search("[\u4e00-\u9fff]", text):
            looks = "it looks like GBK; "
    return BadRow(f"{where}: not UTF-8 text; {looks}convert the file to UTF-8.")


def _text(raw: bytes, name: str, number: int) -> tuple[str, BadRow | None]:
    if number == 1:
        refuse_other_kinds(raw[:4], f"{name}:1")
    encoding = "utf-8-sig" if number == 1 else "utf-8"
    if b"\0" in raw:
        return raw.decode(encoding, "replace"), BadRow(f"{name}:{number}: {_NUL}")
    try:
        return raw.decode(encoding), None
    except UnicodeDecodeError:
        return raw.decode(encoding, "replace"), not_utf8(raw, f"{name}:{number}")
