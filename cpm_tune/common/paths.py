"""Paths of shipped files and of the user's cache, in a checkout and in an installed wheel."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from cpm_tune.errors import UserError

PACKAGE = Path(__file__).resolve().parent.parent


def shipped(folder: str) -> Path:
    """Return the folder `tasks` or `delta_configs`: inside the wheel, else beside the package."""
    inside = PACKAGE / "_shipped" / folder
    return inside if inside.is_dir() else PACKAGE.parent / folder


def cache_dir(name: str) -> Path:
    """Return (and create) a folder below the user's cache folder; UserError if that fails."""
    import platformdirs

    folder = Path(platformdirs.user_cache_dir("cpm-tune", appauthor=False)) / name
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
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def input_sha256(path: Path) -> str:
    """`file_sha256` of an input, computed once per process while the file does not change: the
    trials of a suite share weights and data."""
    status = path.stat()
    return _sha256_of(path.resolve(), status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _sha256_of(path: Path, inode: int, size: int, changed: int) -> str:
    return file_sha256(path)
