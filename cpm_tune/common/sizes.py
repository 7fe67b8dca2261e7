"""Sizes and counts as people write them: 4GB, 512MB, 1.5GiB; 1 text, 2 texts."""

from __future__ import annotations

import math
import re

from cpm_tune.errors import UserError

_UNITS = {"K": 1, "M": 2, "G": 3, "T": 4}


def parse_size(text: str, option: str) -> int:
    """Bytes of a size with its unit; UserError naming the option for anything else."""
    parsed = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT])(i?)B\s*", text, re.IGNORECASE)
    size = (
        float(parsed[1]) * (1024 if parsed[3] else 1000) ** _UNITS[parsed[2].upper()]
        if parsed
        else 0
    )
    if size < 1:
        raise UserError(f"{option} is '{text}', expected a size above zero, such as 4GB or 512MB.")
    return int(size)


def checked_size(text: str, option: str) -> str:
    """Return the text unchanged if it is a size; UserError naming the option if not."""
    parse_size(text, option)
    return text


def counted(n: int, thing: str) -> str:
    """A number of things for people: 1 blank, 1,200 blanks."""
    return f"{n:,} {thing}" + "s" * (n != 1)


def shortened(text: str, most: int = 40) -> str:
    """A text for quotation in a sentence: its first `most` characters and … if it is longer."""
    return text if len(text) <= most else f"{text[:most]}…"


def value_text(value: object) -> str:
    """A value for quotation in a sentence, as JSON and YAML write it: 'x', 1, true, null."""
    plain = {True: "true", False: "false", None: "null"}
    if value is None or isinstance(value, bool):
        return plain[value]
    return shortened(repr(value), 60)


def size_text(size: float) -> str:
    """A size for people, rounded up, as options take it: 1.3GB."""
    for unit in ("KB", "MB", "GB"):
        size /= 1000
        if size < 1000 or unit == "GB":
            break
    return f"{math.ceil(size * 100) / 100:g}{unit}"


def duration(seconds: float) -> str:
    """Seconds as people write them: 9.5 s, 80 s, 12 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
