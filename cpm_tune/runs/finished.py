"""Whether a run of a results folder has finished, and with the results of this version."""

from __future__ import annotations

import os
from pathlib import Path

from cpm_tune.common.folders import OLD, RECORD
from cpm_tune.schema.record import RunRecord, read_record
from cpm_tune.version import NUMBERS


def finished(out: Path, run_id: str) -> RunRecord | None:
    """The record of a finished run, or None."""
    old = out / (run_id + OLD)
    if old.exists() and not (out / run_id).exists():  # killed while one replaced the other
        os.replace(old, out / run_id)
    path = out / run_id / RECORD
    if not path.exists():
        return None
    record = read_record(path)
    return record if record.status == "finished" else None


def other_numbers(record: RunRecord) -> str:
    """A note if another version of the package computed a run, with other results; else ""."""
    if record.numbers == NUMBERS:
        return ""
    return f"of another version, which computes other results (numbers {record.numbers})"
