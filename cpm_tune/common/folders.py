"""A run's folder: the names of its files, its lock, and how it is written and renamed.

A run is written to `RUN_ID.partial` and renamed at its end, so that a finished folder is always
complete and a later run never modifies a finished one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from cpm_tune.common.interrupt import NOTHING_WRITTEN, Interrupts
from cpm_tune.errors import UserError

RECORD = "run.json"
DELTA, DELTA_CONFIG = "delta.safetensors", "delta.json"
LOG, EVENTS = "log.jsonl", "tensorboard"
CHECKPOINT = "checkpoint.pt"  # of an unfinished run
PARTIAL, OLD = ".partial", ".old"  # endings of a folder in the making, and of one being replaced
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_DISK |= {errno.EISDIR, errno.ENOTDIR}
_HIDDEN = ".cpm-tune"  # in the names of a new folder's lock and of its parts


def predictions_file(split: str) -> str:
    """The name of a split's predictions in a run's folder."""
    return f"predictions.{split}.jsonl"


def partial_folder(out: Path, run_id: str) -> Path:
    """Where a run is made until it is complete."""
    return out / (run_id + PARTIAL)


def is_complete(run: Path) -> bool:
    """Whether a run's folder has its final name: it is neither being made nor being replaced."""
    return not run.name.endswith((PARTIAL, OLD))


@contextlib.contextmanager
def run_lock(out: Path, run_id: str, wait: bool, busy: str = "") -> Iterator[None]:
    """Hold a run's lock. Raises UserError if `out` cannot be written, or, unless `wait`, if another
    process is working on the run (`busy` is the beginning of that sentence)."""
    from filelock import FileLock, Timeout

    holder = out / ".locks" / f"{run_id}.holder"
    try:
        holder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / ".locks" / run_id)
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        busy = busy or f"{out / run_id}: another process is working on this run"
        raise UserError(f"{busy}{_holder_text(holder)}.") from error
    except OSError as error:
        raise UserError(
            f"--out {out}: cannot be written ({error.strerror}); choose another."
        ) from error
    try:
        with contextlib.suppress(OSError):  # only for the error above
            holder.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _holder_text(holder: Path) -> str:
    try:
        return f" ({holder.read_text(encoding='utf-8')})"
    except OSError:
        return ""


@contextlib.contextmanager
def new_folder(place: Path, option: str = "--out ", *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder whose content becomes that of `place` on success, else vanishes.

    An empty folder at `place` is filled, not replaced: it may be mounted, or somebody's working
    directory. Whatever a killed process left is removed first. Raises UserError when `place` has
    content (unless `overwrite`: then it is replaced at the end), when it cannot be written, and
    when another process is making it.
    """
    fill = _is_empty(place)
    stem = place / _HIDDEN if fill else Path(f"{place}{_HIDDEN}")
    part, old, lock = (stem.with_name(stem.name + ending) for ending in (PARTIAL, OLD, ".lock"))
    created = [folder for folder in place.parents if not folder.exists()]
    try:
        with _only_process(lock, f"{option}{place}"), Interrupts(message=NOTHING_WRITTEN):
            if old.exists() and not place.exists():  # killed between the two renames below
                os.replace(old, place)
            if place.exists() and not (overwrite or _is_empty(place)):
                raise UserError(
                    f"{option}{place} already exists{_contents(place)}; choose another path "
                    "or remove it."
                )
            try:
                remove(part)
                part.mkdir()
                yield part
                if fill:
                    for path in sorted(part.iterdir(), key=lambda path: path.stat().st_mtime_ns):
                        os.replace(path, place / path.name)  # what was written last comes last
                    part.rmdir()
                    return
                if place.exists():
                    remove(old)
                    os.replace(place, old)
                os.replace(part, place)
                remove(old)
            except BaseException:
                remove(part)
                raise
    except BaseException:
        for folder in created:
            with contextlib.suppress(OSError):  # not empty, or never made
                folder.rmdir()
        raise


@contextlib.contextmanager
def _only_process(lock: Path, place: str) -> Iterator[None]:
    """Hold a lock file that is removed at the end; UserError if it is held or cannot be made."""
    from filelock import FileLock, Timeout

    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        holder = FileLock(lock)
        holder.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"{place}: another process is working there.") from error
    except OSError as error:
        raise UserError(f"{place}: cannot be written ({error.strerror}).") from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        holder.release()


def _is_empty(place: Path) -> bool:
    return os.access(place, os.R_OK) and place.is_dir() and not _names(place)


def _contents(place: Path) -> str:
    readable = os.access(place, os.R_OK) and place.is_dir()
    return f" and contains {', '.join(_names(place)[:3])}" if readable else ""


def _names(place: Path) -> list[str]:
    """What is in a folder, but for the lock and parts of `new_folder`."""
    return sorted(path.name for path in place.iterdir() if not path.name.startswith(_HIDDEN))


@contextlib.contextmanager
def run_folder(out: Path, run_id: str, keep: bool = False) -> Iterator[Path]:
    """Yield `RUN_ID.partial`; on success it becomes `RUN_ID` and replaces an older one.

    It is empty unless `keep`: then its files stay, to resume from. On an exception the partial
    folder stays, for its record, log and checkpoint.
    """
    partial = partial_folder(out, run_id)
    if not keep:
        remove(partial)
    partial.mkdir(exist_ok=True)
    yield partial
    complete(out, run_id)


def complete(out: Path, run_id: str) -> None:
    """Rename a complete `RUN_ID.partial` to `RUN_ID`; an older run goes once that is done."""
    final, partial, old = (out / (run_id + ending) for ending in ("", PARTIAL, OLD))
    if final.exists():
        remove(old)
        os.replace(final, old)
    os.replace(partial, final)
    remove(old)


@contextlib.contextmanager
def disk_trouble(
    place: Path | str, advice: str = "make room and repeat the command: finished runs are kept"
) -> Iterator[None]:
    """Turn a full disk or a place that cannot be written into one sentence that ends in advice."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno not in _DISK:
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{place}: cannot be written ({reason}); {advice}.") from error


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
