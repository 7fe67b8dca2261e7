"""Readers of one file, for tests of files as people have them."""

from __future__ import annotations

from pathlib import Path

from cpm_tune.data.splits import SplitFile
from cpm_tune.data.store import Split, read_split
from cpm_tune.task.registry import load_task


def read(task: str, path: Path, split: str = "dev", skip: bool = False) -> Split:
    from cpm_tune.common.paths import input_sha256

    file = SplitFile(split, (path,), input_sha256(path))
    return read_split(load_task(task), file, skip_bad_rows=skip)


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path
