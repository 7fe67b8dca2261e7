"""Predictions that a browser sends: received within bounds, scored in another process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
import unicodedata
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpm_tune.common.paths import PACKAGE
from cpm_tune.common.sizes import size_text
from cpm_tune.errors import UserError, did_you_mean, readable
from cpm_tune.schema.options import MOST_SEED
from cpm_tune.task.registry import task_files

AT_ONCE = 2  # uploads received or scored
KEPT = 1_000  # systems that one server keeps
LONGEST_NAME = 80  # characters of a system's
LINES = 2_000_000  # of a file
RECEIVING = 120.0  # seconds
SCORING = 300.0
_FIELDS = {"task", "name", "split", "seed", "file", "keep"}
_FILE = re.compile(r"\w[\w .()+-]{0,99}")
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # categories of Unicode: control, format, …
_ENDING = re.compile(r"\.\w{1,8}")


class RefusedError(Exception):
    """An upload that is refused: an HTTP status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Upload:
    """What is asked for with a file: its fields, checked."""

    task: str
    name: str
    split: str
    seed: int
    file: str
    keep: bool


def upload_of(query: Mapping[str, str], tasks: frozenset[str], may_keep: bool) -> Upload:
    """The fields of a request; raise RefusedError for what is missing or wrong."""
    if unknown := sorted(query.keys() - _FIELDS):
        raise RefusedError(
            400, f"there is no field '{unknown[0]}'.{did_you_mean(unknown[0], _FIELDS)}"
        )
    task, name, split = query.get("task", ""), query.get("name", ""), query.get("split", "test")
    seed, keep = query.get("seed", "1"), query.get("keep", "no")
    if task not in tasks:
        raise RefusedError(400, f"there is no task '{task}'.{did_you_mean(task, tasks)}")
    if split not in ("dev", "test"):
        raise RefusedError(400, f"split is '{split}', expected dev or test.")
    if not (1 <= len(seed) <= 10 and seed.isascii() and seed.isdigit() and int(seed) <= MOST_SEED):
        raise RefusedError(400, f"seed is '{seed}', expected a whole number from 0 to {MOST_SEED}.")
    if not name.strip():
        raise RefusedError(400, "name is missing: what the system is to be called in tables.")
    if len(name) > LONGEST_NAME or name != name.strip():
        raise RefusedError(
            400, f"name: expected at most {LONGEST_NAME} characters, without spaces at its ends."
        )
    if any(unicodedata.category(character) in _UNSEEN for character in name):
        raise RefusedError(
            400, f"name is '{readable(name)}', expected no control or format characters."
        )
    if keep not in ("yes", "no"):
        raise RefusedError(400, f"keep is '{keep}', expected yes or no.")
    if keep == "yes" and not may_keep:
        raise RefusedError(403, "this server keeps nothing; start it with --accept DIR.")
    return Upload(task, name, split, int(seed), file_name(query.get("file", "")), keep == "yes")


def file_name(given: str) -> str:
    """A name for an uploaded file: the last part of its own if that is plain, else `predictions`
    with its ending, which readers go by."""
    last = re.split(r"[/\\]", given)[-1]
    if _FILE.fullmatch(last) and "." in last:
        return last
    ending = _ENDING.fullmatch(Path(last).suffix)
    return f"predictions{ending[0] if ending else '.jsonl'}"


class Scorer:
    """Receives and scores uploads, AT_ONCE at a time. `keep_in` is the folder for those kept."""

    def __init__(
        self, data: Path | None, include: tuple[Path, ...], keep_in: Path | None, most_bytes: int
    ) -> None:
        self.tasks = frozenset(task_files(include))
        self.most_bytes, self.keep_in = most_bytes, keep_in
        self._data = None if data is None else str(data.absolute())
        self._include = [str(path.absolute()) for path in include]
        self._busy, self._kept = 0, 0

    async def score(
        self, query: Mapping[str, str], length: str | None, body: AsyncIterator[bytes]
    ) -> dict[str, Any]:
        """Score the predictions in `body`. Raises RefusedError for what is not scored."""
        upload = upload_of(query, self.tasks, self.keep_in is not None)
        if length is not None and not (length.isdigit() and int(length) <= self.most_bytes):
            raise self._too_large()
        if upload.keep and self._kept >= KEPT:
            raise RefusedError(507, f"this server has kept {KEPT:,} systems and keeps no more.")
        with self._one(), tempfile.TemporaryDirectory(prefix="cpm-tune-") as place:
            path = Path(place) / upload.file
            try:
                async with asyncio.timeout(RECEIVING):
                    await self._receive(path, body)
            except TimeoutError as error:
                raise RefusedError(
                    408, f"the file did not arrive within {RECEIVING:.0f} seconds."
                ) from error
            except OSError as error:
                raise RefusedError(507, f"the file cannot be stored ({error.strerror}).") from error
            out = self.keep_in.absolute() if upload.keep and self.keep_in else Path(place, "out")
            request = {
                **vars(upload),
                "data": self._data,
                "include": self._include,
                "out": str(out),
            }
            result = await _scored(request, Path(place))
            self._kept += upload.keep and not result["existed"]
        return {**result, "kept": upload.keep}

    @contextlib.contextmanager
    def _one(self) -> Iterator[None]:
        if self._busy >= AT_ONCE:
            raise RefusedError(503, f"{AT_ONCE} files are being scored; try again in a moment.")
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    async def _receive(self, path: Path, body: AsyncIterator[bytes]) -> None:
        size = n_lines = 0
        with path.open("xb") as file:
            async for part in body:
                size, n_lines = size + len(part), n_lines + part.count(b"\n")
                if size > self.most_bytes:
                    raise self._too_large()
                if n_lines > LINES:
                    raise RefusedError(413, f"the file has more than {LINES:,} lines.")
                file.write(part)
        if not size:
            raise RefusedError(400, "the file is empty.")

    def _too_large(self) -> RefusedError:
        most = size_text(self.most_bytes)
        return RefusedError(413, f"the file has more than {most}; --max-upload allows more.")


async def _scored(request: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """What the scoring process says; it is ended with all it started when time is over, and when
    the request is."""
    paths = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cpm_tune.leaderboard.serve.scoring"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=place,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        start_new_session=True,  # Ctrl-C in the terminal is for the server, which ends this
    )
    try:
        async with asyncio.timeout(SCORING):
            output, errors = await process.communicate(json.dumps(request).encode())
    except TimeoutError as error:
        raise RefusedError(422, f"scoring took longer than {SCORING:.0f} seconds.") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                _end(process.pid)
            await process.wait()
    try:
        result: dict[str, Any] = json.loads(output)
    except ValueError:
        last = errors.decode(errors="replace").strip().splitlines()[-1:]
        print(f"scoring failed: {readable(''.join(last))}", file=sys.stderr, flush=True)
        reason = "was ended for its memory or time" if process.returncode else "failed"
        raise RefusedError(422, f"the process that scored the file {reason}.") from None
    if "error" in result:
        raise RefusedError(422, result["error"])
    return result


def _end(pid: int) -> None:
    if hasattr(os, "killpg"):
        os.killpg(pid, signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGTERM)


def check_folder(folder: Path) -> None:
    """Make the folder for what is kept; UserError if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        why = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise UserError(f"--accept {folder}: cannot be written ({why}); choose another.") from error
