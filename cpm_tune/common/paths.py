"""Paths of shipped files and of the user's cache, in a checkout and in an installed wheel."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from cpm_tune.common.reading import open_regular
from cpm_tune.errors import UserError

LONGEST_NAME = 255  # bytes
PACKAGE = Path(__file__).resolve().parent.parent


def shipped(folder: str) -> Path:
    """Return the folder `tasks` or `delta_configs`: inside the wheel, else beside the package."""
    inside = PACKAGE / "_shipped" / folder
    return inside if inside.is_dir() else PACKAGE.parent / folder


def beside(path: Path, ending: str) -> Path:
    """A path with this ending next to another one, with its name or, if that would be too long for
    a file system, a hash of its name."""
    if path.name in ("", ".."):  # the folder itself, one above, the root
        path = Path(os.path.abspath(path))  # noqa: PTH100  not through links
    name = os.fsencode(path.name)
    if len(name) + len(ending) <= LONGEST_NAME:
        return path.parent / (path.name + ending)
    return path.parent / (hashlib.sha256(name).hexdigest()[:32] + ending)


def name_fault(name: str | Path) -> str:
    """What is wrong with a name whose bytes are not UTF-8, as archives of other systems leave them;
    "" if nothing is. Records, Arrow and safetensors cannot have such names."""
    try:
        raw = os.fsencode(name)
        raw.decode()
    except UnicodeEncodeError:
        return "its name contains half a surrogate pair; rename it"
    except UnicodeDecodeError:
        read = raw.decode("gb18030", "replace")
        reads = "" if "\ufffd" in read else f" (in GBK it reads {read})"
        return f"its name is not UTF-8 text{reads}; rename it, or run the command inside it"
    return ""


def relative(text: str, folders: Iterable[Path]) -> str:
    """A sentence whose paths below one of the folders begin there, for readers elsewhere."""
    for folder in folders:
        if folder.name:
            start = rf"(?<![^\s'\"(]){re.escape(str(folder))}"
            text = re.sub(rf"{start}[/\\](?=\S)", "", text)
            text = re.sub(rf"{start}(?![\w.-]*[/\\\w])", folder.name.replace("\\", r"\\"), text)
    return text


def cache_dir(name: str) -> Path:
    """Return (and create) a folder below the user's cache folder; UserError if that fails."""
    import platformdirs

    folder = Path(platformdirs.user_cache_dir("cpm-tune", appauthor=False)) / name
    if fault := name_fault(folder):
        raise UserError(f"the cache folder {folder}: {fault}, or set XDG_CACHE_HOME to another.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the cache folder {folder} cannot be created ({error.strerror}); set XDG_CACHE_HOME "
            "to a folder you may write."
        ) from error
    return folder


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def input_sha256(path: Path) -> str:
    """`file_sha256` of an input, computed once per process while the file does not change: the
    trials of a suite share weights and data."""
    status = path.stat()
    return _sha256_of(path.resolve(), status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _sha256_of(path: Path, inode: int, size: int, changed: int) -> str:
    return file_sha256(path)
