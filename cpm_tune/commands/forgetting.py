"""The command `forgetting`: what finished runs unlearnt of plain text."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from cpm_tune.analysis.forgetting import MOST, SAMPLE
from cpm_tune.commands.options.runs import Forgetting
from cpm_tune.common.events import emit
from cpm_tune.common.folders import RECORD
from cpm_tune.common.sizes import counted
from cpm_tune.common.texts import table
from cpm_tune.errors import UserError
from cpm_tune.pretrain.sources import documents, sources_of_files
from cpm_tune.runs.forgetting import Meter, known
from cpm_tune.schema.record import AnyRecord, ForgettingRecord, RunRecord, read_any_record
from cpm_tune.schema.walk import iter_records

_ENDINGS = (".txt", ".jsonl", ".json")


def run(options: Forgetting) -> int:
    """Measure, print and record the losses of one run, or of all below a folder."""
    texts = read_texts(options.texts or SAMPLE, options.limit)
    meter, failed, n = Meter(texts, options.backbone), 0, 0
    for place, record in _records(options.runs):
        if not isinstance(record, RunRecord):
            continue
        n += 1
        done = known(record, texts) and not options.overwrite
        try:
            measured = (
                {source: record.forgetting[source] for source in texts}
                if done
                else meter.measure(place, overwrite=options.overwrite)
            )
        except UserError as error:
            if place == options.runs:
                raise
            failed += 1
            print(f"failed: {record.run_id}: {error}", file=sys.stderr)
            continue
        print(f"{record.run_id}{'  (measured before)' * done}")
        print(table(("source", "texts", "bare", "with delta", "difference"), _rows(measured)))
        values = {source: each.model_dump() for source, each in measured.items()}
        emit("forgetting", id=record.run_id, folder=place, sources=values)
    if not n:
        raise UserError(f"{options.runs}: no finished runs.")
    print(f"{counted(n - failed, 'run')}, nats per character; recorded in {RECORD}")
    return 1 if failed else 0


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


def read_texts(place: Path, limit: int) -> dict[str, list[str]]:
    """The first `limit` texts of a file, or of each file of a folder, by the file's stem.

    Of each text the first MOST characters are read.
    """
    files = [place]
    if place.is_dir():
        files = sorted(file for file in place.iterdir() if file.suffix in _ENDINGS)
        if not files:
            raise UserError(f"--texts {place}: no file ends in {', '.join(_ENDINGS)}.")
    elif not place.is_file():
        raise UserError(f"--texts {place}: there is no such file or folder.")
    texts, n_cut = dict[str, list[str]](), 0
    for source in sources_of_files(files, {}):
        whole = [each.text for each in islice(documents(source), limit)]
        n_cut += sum(len(text) > MOST for text in whole)
        texts[source.name] = [text[:MOST] for text in whole]
    if n_cut:
        print(f"note: {counted(n_cut, 'text')} cut to {MOST:,} characters", file=sys.stderr)
    return texts
