"""Prompts to continue (lines of text, or JSON objects with `prompt`), and records as prompts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpm_tune.data.readers import JSON_ENDINGS, decoded, lines, records
from cpm_tune.errors import UserError
from cpm_tune.task import BadRow

_JSON = re.compile(r'\s*(\[\s*)?(\{\s*)?("(prompt|id)"|$)')


@dataclass(frozen=True)
class Prompt:
    """A prompt, its place ("file:line" or "file: item n"), and its id: the row's `id`, or the
    number of its line or item."""

    text: str
    where: str
    id: Any


def read_prompts(path: Path) -> list[Prompt]:
    """Read a file of prompts, JSON if it ends in .jsonl or .json; UserError for the first bad one.

    Blank lines are passed over.
    """
    try:
        rows = records(path, (), {}) if path.suffix in JSON_ENDINGS else lines(path)
        return _prompts(rows, str(path))
    except OSError as error:
        raise UserError(f"--input {path}: cannot be read ({error.strerror}).") from error


def prompts_from(stream: Iterable[bytes]) -> list[Prompt]:
    """The lines of standard input as prompts."""
    return _prompts(decoded(stream, "standard input"), "standard input")


def _prompts(rows: Iterable[tuple[str, Any]], name: str) -> list[Prompt]:
    prompts: list[Prompt] = []
    for where, row in rows:
        if isinstance(row, BadRow):
            raise UserError(row.message)
        number = int(re.findall(r"\d+", where)[-1])
        text, id_ = row, number
        if not isinstance(row, str):
            text = row.get("prompt") if isinstance(row, dict) else None
            if not isinstance(text, str):
                raise UserError(
                    f'{where}: {json.dumps(row, ensure_ascii=False)[:60]} has no text "prompt"; '
                    'expected an object such as {"prompt": "床前明月光，"}.'
                )
            id_ = row.get("id", id_)
            id_ = number if id_ in (None, "") else id_
            check_characters(json.dumps(id_, ensure_ascii=False), f"{where}, id")
            if not text.strip():
                raise UserError(f"{where}: the prompt is empty; give a text, or remove it.")
        elif not text.strip():
            continue
        elif not prompts and _JSON.match(text):
            raise UserError(
                f"{where}: this looks like JSON; give a file that ends in .jsonl or .json."
            )
        check_characters(text, where)
        prompts.append(Prompt(text, where, id_))
    if not prompts:
        raise UserError(f"{name}: contains no prompts.")
    return prompts


def check_characters(text: str, where: str) -> None:
    """Raise UserError for half a surrogate pair, which no UTF-8 file can contain."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: character {error.start + 1} is half a surrogate pair, not a character; "
            "remove it."
        ) from error


def prompt_of(fields: Mapping[str, Any]) -> str:
    """The fields of a record as one text: the value of the only one, or a line "name：value" each.
    Raises TypeError for a value that is not a text or a number."""
    for name, value in fields.items():
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise TypeError(f"'{name}' is {type(value).__name__}, expected text")
    if len(fields) == 1:
        return str(*fields.values())
    return "\n".join(f"{name}：{value}" for name, value in fields.items())
