"""A run's folder: the names of its files, its lock, and how it is written and renamed.

A run is written to `RUN_ID.partial` and renamed at its end, so that a finished folder is always
complete and a later run never modifies a finished one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from cpm_tune.common.interrupt import NOTHING_WRITTEN, Interrupts
from cpm_tune.common.paths import beside
from cpm_tune.common.reading import read_regular
from cpm_tune.errors import UserError

RECORD = "run.json"
DELTA, DELTA_CONFIG = "delta.safetensors", "delta.json"
LOG, EVENTS = "log.jsonl", "tensorboard"
SWEEP, FAILED = ".bench/sweep.json", ".bench/failed"  # of a results folder: what `bench` leaves
CHAT = "chat_template.jinja"
CHECKPOINT = "checkpoint.pt"  # of an unfinished run
# Endings of a folder in the making, of one being replaced, and of one whose files get their places.
PARTIAL, OLD, COMPLETE = ".partial", ".old", ".complete"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}  # errors of writing alone
_DISK = FULL | {errno.EACCES, errno.EPERM, errno.EIO, errno.EISDIR, errno.ENOTDIR}
MAKING = _DISK | {errno.ENOENT, errno.EEXIST}  # of making a folder and files in it, no more
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
        return f" ({read_regular(holder).decode()})"
    except OSError:
        return ""


def worked_on(out: Path, run_id: str) -> bool | None:
    """Whether a process holds a run's lock; None if that cannot be known, as of another machine's.
    The lock itself is not touched: whoever tries it keeps others from it."""
    try:
        text = read_regular(out / ".locks" / f"{run_id}.holder").decode()
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError):
        return None
    holder = re.fullmatch(r"process (\d{1,9}) on (.*)", text)
    if holder is None or holder[2] != platform.node() or os.name != "posix":
        return None
    try:
        os.kill(int(holder[1]), 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


@contextlib.contextmanager
def new_folder(place: Path, option: str = "--out ", *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder whose content becomes that of `place` on success, else vanishes.

    An empty folder at `place` is filled, not replaced: it may be mounted, or somebody's working
    directory. What a killed process left is cleared up first. Raises UserError when `place` has
    content (unless `overwrite`: then it is replaced at the end), when it cannot be written or the
    disk is full, and when another process is making it.
    """
    created = [folder for folder in place.parents if not folder.exists()]
    name, advice = f"{option}{place}", "make room, or choose another path"
    try:
        with (
            _only_process(_lock_of(place), name),
            disk_trouble(name, advice, FULL),
            Interrupts(speak=False, message=NOTHING_WRITTEN) as interrupts,
        ):
            _clear_up(place)
            fill = _is_empty(place)
            if place.exists() and not (overwrite or fill):
                raise UserError(
                    f"{name} already exists{_contents(place)}; choose another path or remove it."
                )
            part = (_inside if fill else _beside)(place, PARTIAL)
            try:
                part.mkdir()
                yield part
                with interrupts.deferred():
                    _put_in_place(part, place, fill)
            except BaseException:
                remove(part)
                raise
    except BaseException:
        for folder in created:
            with contextlib.suppress(OSError):  # not empty, or never made
                folder.rmdir()
        raise


def clear_up(place: Path, option: str = "") -> None:
    """Remove or finish what a killed process left of `new_folder(place)`. Raises UserError if
    another process is making it, or it cannot be written."""
    left = (*_leftovers(place), _inside(place, COMPLETE), _lock_of(place))
    if any(path.exists() for path in left):
        with _only_process(_lock_of(place), f"{option}{place}"):
            _clear_up(place)


def _inside(place: Path, ending: str) -> Path:
    return place / (_HIDDEN + ending)


def _beside(place: Path, ending: str) -> Path:
    return beside(place, _HIDDEN + ending)


def _lock_of(place: Path) -> Path:
    """The lock's file: within an empty folder, whose parent may be another file system; else next
    to the place. A folder that is being filled, or was when its process was killed, contains it."""
    filling = _is_empty(place) or any(_inside(place, e).exists() for e in (".lock", COMPLETE))
    return (_inside if filling else _beside)(place, ".lock")


def _leftovers(place: Path) -> list[Path]:
    return [_beside(place, OLD), _beside(place, PARTIAL), _inside(place, PARTIAL)]


def _clear_up(place: Path) -> None:
    old = _beside(place, OLD)
    if old.exists() and not place.exists():  # killed between two renames
        os.replace(old, place)
    if _inside(place, COMPLETE).exists():  # killed while the folder was filled
        _fill(place)
    for path in _leftovers(place):
        if path.exists():
            remove(path)


def _put_in_place(part: Path, place: Path, fill: bool) -> None:
    """Give a complete folder its place; at every moment the old or the new one is there (without
    `_exchange`, `_clear_up` puts the old one back)."""
    if fill:
        os.replace(part, _inside(place, COMPLETE))
        _fill(place)
    elif place.exists() and _exchange(part, place):
        remove(part)
    else:
        old = _beside(place, OLD)
        if place.exists():
            os.replace(place, old)
        os.replace(part, place)
        remove(old)


def _fill(place: Path) -> None:
    complete = _inside(place, COMPLETE)
    for path in sorted(complete.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        os.replace(path, place / path.name)  # what was written last comes last
    complete.rmdir()


def _exchange(first: Path, second: Path) -> bool:
    """Exchange the names of two folders in one step, as Linux can; False if the system cannot."""
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # another system, or an old C library
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of linux/fcntl.h and linux/fs.h
    return bool(renameat2(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0)


@contextlib.contextmanager
def _only_process(lock: Path, place: str) -> Iterator[None]:
    """Hold a lock file that is removed at the end; UserError if it is held or cannot be made."""
    from filelock import FileLock, Timeout

    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        holder = FileLock(lock)
        holder.acquire(timeout=0)
    except Timeout as error:
        if not lock.exists():  # refused by the system, which filelock takes for held
            raise UserError(f"{place}: cannot be written; choose another path.") from error
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
    place: Path | str,
    advice: str = "make room and repeat the command: finished runs are kept",
    errors: Collection[int] = _DISK,
) -> Iterator[None]:
    """Turn a full disk or a place that cannot be written into one sentence that ends in advice.

    `errors` are the system's: FULL, if what is done inside also reads other files.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.errno not in errors:
            raise
        raise UserError(
            f"{place}: cannot be written ({os.strerror(error.errno)}); {advice}."
        ) from error


def check_results(out: Path) -> None:
    """Raise UserError if a results folder can be neither written nor made; nothing stays there."""
    above = next((place for place in (out, *out.absolute().parents) if place.exists()), out)
    if not above.is_dir():
        raise UserError(f"--out {out}: cannot be written ({above} is a file); choose another.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: cannot be written ({above}: no permission); choose another.")
    try:  # a file without a name where the system has such; some file systems, as /proc, take none
        tempfile.TemporaryFile(dir=above).close()
    except OSError as error:
        why = f"{above}: {error.strerror}"
        raise UserError(f"--out {out}: cannot be written ({why}); choose another.") from error


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
