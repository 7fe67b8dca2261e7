"""Writes files that are whole or absent: written beside their place, flushed, renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cpm_tune.common.paths import beside


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to, which takes the place of `path` on success and vanishes otherwise.

    The file is flushed to disk before it is renamed; Windows flushes only files open for writing.
    """
    part = beside(path, ".part")
    try:
        yield part
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def scratch_folder(where: Path) -> Iterator[Path]:
    """Yield an empty folder below a cache that vanishes at the end; those that killed processes
    left there vanish first. Each holds the lock of a file in it as long as its process lives."""
    from filelock import FileLock, Timeout

    for left in where.glob("scratch-*"):
        with contextlib.suppress(OSError, Timeout), FileLock(left / "lock", timeout=0):
            shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix="new-", dir=where))
    own = FileLock(new / "lock")
    own.acquire()
    folder = new.rename(where / f"scratch-{new.name}")  # from now on it may be taken for a left one
    try:
        yield folder
    finally:
        own.release()
        shutil.rmtree(folder, ignore_errors=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file, whole or not at all; a text as UTF-8.

    A link stays a link; a device or a pipe is written to and never replaced.
    """
    written = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        path.write_bytes(written)
        return
    with replacing(path.resolve()) as part:
        part.write_bytes(written)
