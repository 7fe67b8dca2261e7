"""The output folders of preparation and training: one process at a time, no foreign files."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from cpm_tune.common.folders import remove, run_lock
from cpm_tune.errors import UserError

LOCK = "pretrain"


def _lock(out: Path) -> contextlib.AbstractContextManager[None]:
    return run_lock(out, LOCK, wait=False, busy=f"{out}: another process is at work in this folder")


@contextlib.contextmanager
def new_folder(
    out: Path, leftovers: re.Pattern[str], made: re.Pattern[str] | None = None
) -> Iterator[None]:
    """Make and lock an output folder; files that an unfinished attempt left are removed.

    `leftovers` matches their names. Raises UserError if there is anything else in the folder, if it
    cannot be written, or if another process is at work there. On any error, files that `made`
    matches are removed, and the folder with its lock if they are new and nothing else is there.
    """
    new = [path for path in (out / ".locks", out, *out.parents) if not path.exists()]
    try:
        with _lock(out):
            try:
                found = [path for path in out.iterdir() if path.name != ".locks"]
                foreign = sorted(path.name for path in found if not leftovers.fullmatch(path.name))
                if foreign:
                    made = None  # may match what is not ours
                    if out / ".locks" in new:
                        remove(out / ".locks")
                    raise UserError(
                        f"--out {out}: there are other files in it ({', '.join(foreign[:3])}); "
                        "choose a new or an empty folder."
                    )
                for path in found:
                    remove(path)
                yield
            except BaseException:
                _clear(out, made, lock=out / ".locks" in new)
                raise
    except BaseException:
        for path in new:
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()
        raise


def _clear(out: Path, made: re.Pattern[str] | None, *, lock: bool) -> None:
    """Remove what was made in the folder, and its lock if nothing else is left."""
    with contextlib.suppress(OSError):  # the error that led here is the one to tell
        for path in out.iterdir():
            if made is not None and made.fullmatch(path.name):
                remove(path)
        if lock and [path.name for path in out.iterdir()] == [".locks"]:
            remove(out / ".locks")


@contextlib.contextmanager
def old_folder(out: Path) -> Iterator[None]:
    """Lock the folder of a run to go on with."""
    with _lock(out):
        yield
