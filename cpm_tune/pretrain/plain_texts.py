"""The plain texts that forgetting is measured on: files of them, or the package's sample."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

from cpm_tune.analysis.forgetting import MOST, SAMPLE
from cpm_tune.common.sizes import counted
from cpm_tune.errors import UserError
from cpm_tune.pretrain.sources import documents, sources_of_files

LIMIT = 200  # texts of a source
_ENDINGS = (".txt", ".jsonl", ".json")


def read_texts(place: Path | None = None, limit: int = LIMIT) -> dict[str, list[str]]:
    """The first `limit` texts of a file, or of each file of a folder, by the file's stem; by
    default of the package's sample. Of each text the first MOST characters are read."""
    place = place or SAMPLE
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
