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
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cpm_tune.common.interrupt import Interrupts
from cpm_tune.errors import UserError

RECORD = "run.json"
DELTA, DELTA_CONFIG = "delta.safetensors", "delta.json"
LOG, EVENTS = "log.jsonl", "tensorboard"
CHECKPOINT = "checkpoint.pt"  # of an unfinished run
PARTIAL, OLD = ".partial", ".old"  # endings of a folder in the making, and of one being replaced
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


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
    """Yield an empty folder that becomes `place` on success and vanishes otherwise.

    Raises UserError if `place` exists (unless `overwrite`: then it is replaced at the end), or if
    it cannot be written.
    """
    if place.exists() and not overwrite:
        raise UserError(f"{option}{place} already exists; choose another path or remove it.")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(PARTIAL, f"{place.name}.", place.parent))
    except OSError as error:
        raise UserError(f"{option}{place}: cannot be written ({error.strerror}).") from error
    try:
        part.chmod(0o755)
        with Interrupts():  # on SIGTERM, too, the partial folder is removed
            yield part
        if place.exists():
            old = part.with_suffix(OLD)
            os.replace(place, old)
            os.replace(part, place)
            remove(old)
        else:
            os.replace(part, place)
    except BaseException:
        remove(part)
        raise


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
def disk_trouble(folder: Path) -> Iterator[None]:
    """Turn a full disk or a folder that cannot be written into one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno not in _DISK:
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{folder}: cannot be written ({reason}); make room and repeat the command: finished "
            "runs are kept."
        ) from error


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
