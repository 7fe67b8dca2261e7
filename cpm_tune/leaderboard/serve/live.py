"""The page of results folders, kept up to date: only what has changed is read again."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cpm_tune.common.folders import is_complete
from cpm_tune.common.paths import relative
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.examples import BESIDE
from cpm_tune.leaderboard.html import as_script, page
from cpm_tune.leaderboard.page_data import Source, lazy_part, legible, page_parts, source_of
from cpm_tune.leaderboard.results import Results, read_folder
from cpm_tune.leaderboard.serve.activity import activity
from cpm_tune.leaderboard.texts import Which
from cpm_tune.schema.record import AnyRecord, RunRecord, read_any_record
from cpm_tune.schema.walk import record_paths

PARTS_PATH = "parts"  # the path of the runs' own parts
POLL = 2.0  # seconds between two looks at the folders, at least
_SHARE = 4  # of the time at most one part of so many is spent looking
_AGAIN = 3  # readings in a row while files move under them

Stamp = tuple[int, int, int, int]


@dataclass(frozen=True)
class Showing:
    """What is served: `page` and `data` change together with `version`; `activity` at each look.
    Parts of single runs are made of `source` when they are asked for."""

    version: str
    page: bytes
    data: bytes
    policy: str
    source: Source
    activity: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the page shows, as the options of `leaderboard` have it."""

    published: bool = False
    include: tuple[Path, ...] = ()
    per_run: int | None = None
    texts: Which = "sample"
    data: Path | None = None


class Records:
    """The records of folders as they were last read, by path, with the stamps of their files."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Stamp, AnyRecord | UserError]] = {}
        self.n_read = 0

    def read(self, path: Path) -> AnyRecord:
        """As `read_any_record`; a file that has not changed is not read again."""
        stamp = _stamp(path)  # first: what is written meanwhile has another one
        known = self._known.get(path)
        if known is None or known[0] != stamp or stamp is None:
            self.n_read += 1
            result: AnyRecord | UserError
            try:
                result = read_any_record(path)
            except UserError as error:
                result = error.with_traceback(None)
            if stamp is None:
                self._known.pop(path, None)
            else:
                self._known[path] = stamp, result
        else:
            result = known[1]
        if isinstance(result, UserError):
            raise UserError(str(result))
        return result

    def forget_all_but(self, paths: Mapping[Path, object]) -> None:
        """Forget records whose files are gone."""
        self._known = {path: known for path, known in self._known.items() if path in paths}

    def unfinished(self) -> list[tuple[Path, RunRecord]]:
        """The runs in the making, with their folders."""
        return [
            (path.parent, record)
            for path, (_, record) in self._known.items()
            if isinstance(record, RunRecord) and not is_complete(path.parent)
            if record.status != "finished"
        ]


class Live:
    """Results folders as they are now. `look` is for one thread at a time; `showing` for all."""

    def __init__(self, folders: Sequence[Path], shown: Shown) -> None:
        """The folders must not contain each other. Raises UserError if the first does not exist."""
        self._folders, self._shown = tuple(folders), shown
        self._records = Records()
        self._stamps: dict[Path, Stamp | None] | None = None
        self._results = Results((), (), ())
        self._lock = threading.Lock()
        self._looked, self._took = 0.0, 0.0
        self.showing = self._look(None)

    @property
    def n_read(self) -> int:
        """How many records have been read from files so far."""
        return self._records.n_read

    @property
    def due(self) -> bool:
        """Whether it is time for another look."""
        return time.monotonic() - self._looked >= max(POLL, _SHARE * self._took)

    def look(self) -> None:
        """Take in what has changed. A folder that is away for the moment changes nothing."""
        with self._lock:
            started = time.monotonic()
            try:
                before, self.showing = self.showing, self._look(self.showing)
                if self.showing.source is not before.source:
                    _collect()
            except UserError as error:
                going_on = {**self.showing.activity, "error": relative(str(error), self._folders)}
                self.showing = replace(self.showing, activity=going_on)
            self._looked = time.monotonic()
            self._took = self._looked - started

    def part(self, name: str) -> str | None:
        """A part of one run as a script; None if there is none of that name."""
        value = lazy_part(self.showing.source, name)
        return None if value is None else as_script(name, value)

    def _look(self, before: Showing | None) -> Showing:
        changed = before is None
        for _ in range(_AGAIN):
            stamps = self._scan()
            if stamps == self._stamps:
                break
            changed = True
            self._results = read_folder(*self._folders, read=self._records.read)
            self._records.forget_all_but(stamps)
            self._stamps = stamps
        going_on = self._activity()
        if before is not None and not changed:
            return replace(before, activity=going_on)
        return self._made(going_on)

    def _scan(self) -> dict[Path, Stamp | None]:
        return {
            (path := Path(name)): _stamp(path)
            for folder in self._folders
            for name in record_paths(str(folder), [])
        }

    def _activity(self) -> dict[str, Any]:
        finished = {run.record.run_id for run in self._results.runs}
        places = dict.fromkeys((*self._folders, *(p.parent.parent for p in self._stamps or ())))
        going_on = activity(self._records.unfinished(), finished, places)
        return {key: legible(value) for key, value in going_on.items()}

    def _made(self, going_on: Mapping[str, Any]) -> Showing:
        shown, results = self._shown, self._results
        board = make_board(results, shown.include, shown.published)
        of_examples = (shown.per_run, shown.texts, shown.data, shown.include)
        source = source_of(board, results, *of_examples, BESIDE, PARTS_PATH)
        parts = page_parts(source)
        data = json.dumps(parts, separators=(",", ":"), allow_nan=False)
        version = hashlib.sha256(data.encode()).hexdigest()[:16]
        with_version = {**parts, "live": {"version": version}}
        text = page(with_version, ("live.js",), "connect-src 'self'", trust="'self'")
        policy = text.partition('http-equiv="Content-Security-Policy" content="')[2]
        policy = policy.partition('"')[0]
        return Showing(version, text.encode(), data.encode(), policy, source, going_on)


def _collect() -> None:
    """Free what an earlier board left: `without_collection` freezes its circles as well."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()  # the records again


def _stamp(path: Path) -> Stamp | None:
    """What changes with a file; None if it cannot be known."""
    try:
        status = os.stat(path)  # noqa: PTH116 - ten thousand
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
