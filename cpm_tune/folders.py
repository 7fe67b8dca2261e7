"""A run's folder and lock.

A run is made in `RUN_ID.partial` and renamed when it is whole, so that a finished folder is
complete by construction and a finished run is never harmed by a later one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cpm_tune.errors import UserError


@contextlib.contextmanager
def run_lock(out: Path, run_id: str, wait: bool) -> Iterator[None]:
    """Hold a run's lock. Raises UserError when `out` cannot be written, or, unless `wait`, when
    another process is at work on the run."""
    from filelock import FileLock, Timeout

    try:
        (out / ".locks").mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / ".locks" / run_id)
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        raise UserError(f"{out / run_id}: another process is at work on this run.") from error
    except OSError as error:
        raise UserError(
            f"--out {out}: cannot be written ({error.strerror}); choose another."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `place` on success and vanishes otherwise.

    Raises UserError when `place` is there already or cannot be written.
    """
    if place.exists():
        raise UserError(f"--out {place}: is there already; choose another or remove it.")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f"{place.name}.", dir=place.parent))
    except OSError as error:
        raise UserError(f"--out {place}: cannot be written ({error.strerror}).") from error
    try:
        part.chmod(0o755)
        yield part
        os.replace(part, place)
    except BaseException:
        remove(part)
        raise


@contextlib.contextmanager
def run_folder(out: Path, run_id: str) -> Iterator[Path]:
    """Yield an empty `RUN_ID.partial`; on success it becomes `RUN_ID`, in place of an older one.

    On an exception the partial folder stays, for its record and log.
    """
    final, partial, old = (out / f"{run_id}{ending}" for ending in ("", ".partial", ".old"))
    remove(partial)
    partial.mkdir()
    yield partial
    if final.exists():
        remove(old)
        os.replace(final, old)
    os.replace(partial, final)
    remove(old)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
