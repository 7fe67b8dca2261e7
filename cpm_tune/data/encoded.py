"""Rows as an encoder encodes them, each encoded once: kept in the user's cache between runs.

A file has the rows of one split for one use, in the order of the rows: all those encoded so far. It
is written atomically and read record by record, each with a checksum; a damaged record or file
counts as absent. Files are read, not mapped into memory: one that somebody cuts short must not end
the process. What this process encodes goes to a nameless file first, so memory has 16 bytes per row
and a killed process leaves nothing.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from cpm_tune.backbone.example import Example
from cpm_tune.common.paths import PACKAGE, cache_dir, file_sha256
from cpm_tune.data.encode import Encoder
from cpm_tune.data.example_store import EncodedCache
from cpm_tune.data.files import as_json
from cpm_tune.data.store import RowDataset
from cpm_tune.task import Row

Use = Literal["train", "score", "prefix"]

_CHUNK = 2_000
_CODE = ("data/encode.py", "data/encoded.py", "data/shots.py", "task/template.py")


def encoded(rows: Iterable[Row], encoder: Encoder, use: Use) -> Iterator[tuple[Row, Example]]:
    """Yield each row with its example, in order; from the cache where the rows are a split's.

    Use: "train" and "score" are `Encoder.encode` with and without `train`; "prefix" is
    `Encoder.prefix`, as an example of one context without candidates.
    """
    if not isinstance(rows, RowDataset):
        for row in rows:
            yield row, _encode(encoder, row, use)
        return
    for start in range(0, len(rows), _CHUNK):
        numbers = range(start, min(start + _CHUNK, len(rows)))
        chunk = rows.at(numbers)
        yield from zip(chunk, _examples(rows, numbers, encoder, use, chunk), strict=True)


def encoded_at(
    rows: RowDataset, numbers: Sequence[int], encoder: Encoder, use: Use
) -> list[Example]:
    """Return the examples of rows by number, in that order; encode those that are not cached."""
    return _examples(rows, numbers, encoder, use, None)


def keep_encoded(encoder: Encoder) -> None:
    """Write what this encoder encoded to the cache; complete splits were written before."""
    for store in encoder.stores.values():
        store.publish()


def _encode(encoder: Encoder, row: Row, use: Use) -> Example:
    if use == "prefix":
        return encoder.prefix(row)
    return encoder.encode(row, train=use == "train")


def _examples(
    rows: RowDataset, numbers: Sequence[int], encoder: Encoder, use: Use, read: list[Row] | None
) -> list[Example]:
    if rows.origin is None:
        return [_encode(encoder, row, use) for row in read or rows.at(numbers)]
    store = encoder.stores.get((rows.origin.key, use))
    if store is None:
        path = cache_dir("encoded") / f"{_key(rows, encoder, use)}.bin"
        store = encoder.stores[rows.origin.key, use] = EncodedCache(path, rows.origin.n)
    places = [rows.origin.place(number) for number in numbers]
    known = {place: example for place in places if (example := store.get(place)) is not None}
    absent = [k for k, place in enumerate(places) if place not in known]
    if absent:
        uncached = [read[k] for k in absent] if read else rows.at([numbers[k] for k in absent])
        for k, row in zip(absent, uncached, strict=True):
            example = known[places[k]] = _encode(encoder, row, use)
            store.put(places[k], example)
        if store.whole:
            store.publish()
    return [known[place] for place in places]


@cache
def _code(tokenizer: type) -> list[str]:
    from importlib.metadata import version

    files = [*(PACKAGE / name for name in _CODE), Path(inspect.getfile(tokenizer))]
    return [version("jieba"), *(file_sha256(file) for file in files)]


def _key(rows: RowDataset, encoder: Encoder, use: Use) -> str:
    assert rows.origin is not None
    parts = [
        use,
        rows.origin.key,
        rows.origin.n,
        encoder.fingerprint(),
        _code(type(encoder.tokenizer)),
    ]
    return hashlib.sha256(as_json(parts).encode()).hexdigest()
