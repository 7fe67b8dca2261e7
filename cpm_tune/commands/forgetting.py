"""The command `forgetting`: what finished runs unlearnt of plain text; also for `tune`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from cpm_tune.commands.options.runs import Forgetting
from cpm_tune.common.events import emit
from cpm_tune.common.folders import RECORD
from cpm_tune.common.sizes import counted
from cpm_tune.common.texts import table
from cpm_tune.errors import UserError
from cpm_tune.pretrain.plain_texts import read_texts
from cpm_tune.runs.forgetting import Meter
from cpm_tune.schema.record import AnyRecord, ForgettingRecord, RunRecord, read_any_record
from cpm_tune.schema.walk import iter_records


def run(options: Forgetting) -> int:
    """Measure, print and record the losses of one run, or of all below a folder."""
    texts = read_texts(options.texts, options.limit)
    meter, failed, n = Meter(texts, options.backbone), 0, 0
    for place, record in _records(options.runs):
        if not isinstance(record, RunRecord):
            continue
        n += 1
        try:
            _measure(meter, place, options.overwrite)
        except UserError as error:
            if place == options.runs:
                raise
            failed += 1
            print(f"failed: {record.run_id}: {error}", file=sys.stderr)
    if not n:
        raise UserError(f"{options.runs}: no finished runs.")
    print(f"{counted(n - failed, 'run')}, nats per character; recorded in {RECORD}")
    return 1 if failed else 0


def after_run(folder: Path) -> None:
    """Measure, print and record the losses of a run that `tune` has just finished."""
    print("forgetting in nats per character of plain texts")
    _measure(Meter(read_texts()), folder)


def _measure(meter: Meter, place: Path, overwrite: bool = False) -> None:
    before = meter.known(place) if not overwrite else None
    measured = before or meter.measure(place, overwrite=overwrite)
    print(f"{place.name}{'  (measured before)' * (before is not None)}")
    print(table(("source", "texts", "bare", "with delta", "difference"), _rows(measured)))
    values = {source: each.model_dump() for source, each in measured.items()}
    emit("forgetting", id=place.name, folder=place, sources=values)


def _rows(measured: Mapping[str, ForgettingRecord]) -> list[tuple[str, ...]]:
    return [
        (
            *(source, f"{each.texts:,}", f"{each.bare:.4f}", f"{each.tuned:.4f}"),
            f"{each.difference:+.4f}  {each.interval}",
        )
        for source, each in measured.items()
    ]


def _records(place: Path) -> list[tuple[Path, AnyRecord]]:
    if (place / RECORD).is_file():
        return [(place, read_any_record(place / RECORD))]
    skipped: list[str] = []
    records = list(iter_records(place, skipped))
    for reason in skipped:
        print(f"note: {reason}", file=sys.stderr)
    return records
