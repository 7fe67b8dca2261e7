"""Reads JSON and YAML that users give: the one place, bounded in size, depth, aliases and nodes.

A file of 230 bytes whose aliases name each other can stand for gigabytes; such files, and whatever
else makes a parser fail, are a ValueError with one short sentence. In data and predictions, so are
the numbers that JSON does not have (NaN, Infinity, 1e999): they would break what is made of them.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from cpm_tune.common.sizes import shortened
from cpm_tune.errors import UserError

MOST_TEMPLATE = 2**18  # characters of a chat template; long ones have 20,000
MAX_BYTES = 64 * 2**20
MAX_DEPTH = 50  # of YAML
MAX_JSON_DEPTH = 200
MAX_NODES = 100_000
MAX_BITS = 1024  # of a whole number: a float has no more, and Python prints few more


def open_regular(path: Path) -> io.BufferedReader:
    """A regular file, open for reading bytes; raise OSError for anything else.

    To open a named pipe would wait for a writer for ever, and a device has no end.
    """
    return open(path, "rb", opener=_regular)


def read_regular(path: Path) -> bytes:
    """The bytes of a regular file; raise OSError for anything else."""
    with open_regular(path) as file:
        return file.read()


def _regular(name: str, flags: int) -> int:
    descriptor = os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # Python itself refuses a folder
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", name)


def read_json(path: Path, *, unique_keys: bool = False) -> Any:
    """Return the value of a JSON file; raise OSError or ValueError for what is wrong with it.

    NaN and infinity are read: who checks the values names the key.
    """
    return parse_json(_text(path, _regular), unique_keys=unique_keys, finite=False)


def parse_json(text: str | bytes, *, unique_keys: bool = False, finite: bool = True) -> Any:
    """Return the value of a JSON text; raise ValueError for what is wrong with it.

    That includes numbers that JSON does not have, unless `finite` is False, and, if they are to be
    unique, two equal keys of one object.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text))
    try:
        value = _decoder(unique_keys, finite).decode(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    except ValueError as error:
        if "integer string conversion" in str(error):  # Python's advice is for programmers
            raise ValueError("a whole number of too many digits") from error
        raise
    if text.count("[") + text.count("{") > MAX_JSON_DEPTH:
        _check_depth(value)
    return value


@cache
def _decoder(unique_keys: bool, finite: bool) -> json.JSONDecoder:
    hook = _unique if unique_keys else None
    if not finite:
        return json.JSONDecoder(object_pairs_hook=hook)
    return json.JSONDecoder(object_pairs_hook=hook, parse_float=_finite, parse_constant=_not_json)


def _check_depth(value: Any) -> None:
    """Raise ValueError if lists and objects are nested deeper than MAX_JSON_DEPTH."""
    level = [value]
    for _ in range(MAX_JSON_DEPTH + 1):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise ValueError(f"nested more than {MAX_JSON_DEPTH} levels deep")


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large for a number")
    return value


def read_text(path: Path, what: str, most: int, *, pipe: bool = False) -> str:
    """The text of a UTF-8 file of at most `most` characters; raise UserError for another one. With
    `pipe`, it need not be a regular file: a user has named it."""
    opener = None if pipe else _regular
    try:
        with open(path, encoding="utf-8-sig", newline="", opener=opener) as file:
            text = file.read(most + 1)
    except OSError as error:
        raise UserError(f"{path}: no {what} can be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a {what}: it is not UTF-8 text.") from error
    if len(text) > most:
        raise UserError(f"{path}: not a {what}: longer than {most:,} characters.")
    return text


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"'{key}' is there twice")
    return values


def read_mapping(path: Path, option: str, example: str) -> dict[str, Any]:
    """Return the mapping that a user's YAML or JSON file contains.

    `option` is how the user named it (--config), `example` a line as it could be. Raises UserError.
    """
    try:
        values = parse_yaml(_text(path))
    except FileNotFoundError as error:
        raise UserError(f"{option} {path}: there is no such file.") from error
    except OSError as error:
        raise UserError(f"{option} {path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise UserError(f"{option} {path}: not readable YAML or JSON ({error}).") from error
    if not isinstance(values, dict):
        raise UserError(f"{option} {path}: expected a mapping, such as `{example}`.")
    return {str(key): value for key, value in values.items()}  # 1 and "1" have no meaning here


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML (or JSON) text; raise ValueError with one line for what is wrong.

    YAML 1.1 as PyYAML's safe loader reads it, but numbers such as 1e-3 need no dot, and dates stay
    text.
    """
    import yaml

    loader = _loader()
    try:
        _check_size(yaml.parse(text, loader))
        return yaml.load(text, loader)  # noqa: S506  a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        where = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise ValueError(f"{error.problem}{where}") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:200]) from error
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    except _YamlError:
        raise
    except Exception as error:  # a tag's constructor may raise anything: !!int x, !!timestamp x
        raise ValueError("a value that does not fit its tag") from error


def _text(path: Path, opener: Callable[[str, int], int] | None = None) -> str:
    """The text of a file that is read whole; raise OSError or ValueError."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES // 2**20} MiB")
    try:
        with open(path, encoding="utf-8-sig", opener=opener) as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text at byte {error.start:,}") from error


class _YamlError(ValueError):
    """What is wrong with a document, as a clause for users."""


def _check_size(events: Any) -> None:
    """Raise ValueError if the document is too deep, or too large with its aliases written out."""
    import yaml

    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []  # anchors of the collections around, and sizes
    size = 0
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, size))
            size += 1
            if len(open_nodes) > MAX_DEPTH:
                raise _YamlError(f"nested more than {MAX_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = size - before
        elif isinstance(event, yaml.ScalarEvent):
            size += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise _YamlError(f"the alias *{event.anchor} contains itself")
            size += sizes.get(str(event.anchor), 1)
        if size > MAX_NODES:
            raise _YamlError(f"more than {MAX_NODES:,} values, aliases written out")


def _loader() -> Any:
    """PyYAML's safe loader, with the numbers that people write and without dates."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def construct_yaml_int(self, node: Any) -> int:
            value: int = super().construct_yaml_int(node) if len(node.value) <= MAX_BITS else -1
            if len(node.value) > MAX_BITS or value.bit_length() > MAX_BITS:
                raise _YamlError(f"a whole number of more than {MAX_BITS} bits")
            return value

        def flatten_mapping(self, node: Any) -> None:
            keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            for key, times in keys.most_common(1):
                if times > 1 and key != "<<":
                    raise _YamlError(f"'{shortened(key)}' is there twice")
            super().flatten_mapping(node)

    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
    number = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return Loader
