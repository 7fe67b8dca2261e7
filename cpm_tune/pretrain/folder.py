"""The output folders of preparation and training: one process at a time, no foreign files."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from cpm_tune.errors import UserError
from cpm_tune.folders import remove, run_lock

LOCK = "pretrain"


@contextlib.contextmanager
def new_folder(out: Path, leftovers: re.Pattern[str]) -> Iterator[None]:
    """Make and lock an output folder; files that an unfinished attempt left are removed.

    `leftovers` matches their names. Raises UserError if there is anything else in the folder, if it
    cannot be written, or if another process is at work there.
    """
    with run_lock(out, LOCK, wait=False):
        found = [path for path in out.iterdir() if path.name != ".locks"]
        foreign = sorted(path.name for path in found if not leftovers.fullmatch(path.name))
        if foreign:
            raise UserError(
                f"--out {out}: there are other files in it ({', '.join(foreign[:3])}); choose a "
                "new or an empty folder."
            )
        for path in found:
            remove(path)
        yield


@contextlib.contextmanager
def old_folder(out: Path) -> Iterator[None]:
    """Lock the folder of a run to go on with."""
    with run_lock(out, LOCK, wait=False):
        yield
