"""Rows that splits share: as they are, in normal form, nearly, or in one of their texts.

Near duplicates are found by MinHash (Broder 1997; the library datasketch) in buckets of locality-
sensitive hashing, and kept if the Jaccard index of their shingles, which is then computed, is at
least NEAR. Everything is cached under the data's identity.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from cpm_tune.analysis.texts import fields, normalised, option_column, sample, texts
from cpm_tune.common.paths import cache_dir
from cpm_tune.common.writing import write_atomically
from cpm_tune.data.store import Split
from cpm_tune.task import Options, Row, Task

VERSION = 2
NEAR = 0.8  # Jaccard index of shingles from which rows are near duplicates
MOST = 100_000  # rows of a split that are compared by default
MOST_NEAR = 10_000  # rows of a split whose near duplicates are looked for by default
SHARED = 6  # characters, in normal form, of a text that counts as shared
WINDOW = 13  # characters in a row that a corpus has as well (Brown et al. 2020)
_SHINGLE = 3
_HASHES = 128
_UNKNOWN = "null"  # the answer of a row without one
_LOOSE = 0.6  # the index for which buckets are made, so that few of NEAR are missed


@dataclass(frozen=True)
class Overlap:
    """Rows of `split` that `other` has as well, by number.

    `normalised`: case, width, spaces, punctuation and the order of texts do not count; contains
    `exact`, and is contained in `near`. `shared`: one of several texts is one of `other`'s, and the
    row is not in `near`. Of `normalised`, `swapped` have their texts in another order than any row
    of `other`, and `contradicting` an answer that `other` never gives to their texts. `n` rows were
    compared with `n_other`, for near duplicates at most `n_near` of either.
    """

    split: str
    other: str
    n: int
    n_other: int
    n_near: int
    exact: tuple[int, ...]
    normalised: tuple[int, ...]
    near: tuple[int, ...]
    shared: tuple[int, ...]
    swapped: tuple[int, ...] = ()
    contradicting: tuple[int, ...] = ()

    @property
    def any(self) -> frozenset[int]:
        """All rows that overlap in any way."""
        return frozenset(self.near) | frozenset(self.shared)


@dataclass(frozen=True)
class Repeats:
    """Rows of a split that have the same texts in normal form as an earlier one, and how many
    texts with repeats have several answers (the first of them as an example)."""

    rows: int
    conflicting: int
    example: str = ""


class Fingerprints:
    """A split's rows in the forms in which they are compared."""

    def __init__(self, task: Task, split: Split, most: int | None = MOST) -> None:
        self.name, self.numbers = split.file.split, sample(split.rows, most or len(split))
        names, listed = fields(task), option_column(task)
        self.listed = bool(listed)
        several = len(names) + bool(listed) > 1
        self.exact: list[bytes] = []
        self.ordered: list[bytes] = []  # in normal form, the texts in their order
        self.normal: list[bytes] = []
        self.parts: list[list[bytes]] = []
        self.answers: list[str] = []
        self._whole: list[str] = []
        for start in range(0, len(self.numbers), 2_000):
            for row in split.rows.at(self.numbers[start : start + 2_000]):
                shown = [*texts(names, row), *(row[listed] if listed else [])]
                plain = [normalised(text) for text in shown]
                whole = "\n".join(sorted(plain))
                self.exact.append(_digest("\n\n".join(shown)))
                self.ordered.append(_digest("\n\n".join(plain)))
                self.normal.append(_digest(whole))
                parts = plain[: len(names)] if several else []
                self.parts.append([_digest(part) for part in parts if len(part) >= SHARED])
                self.answers.append(_answer(task, row))
                self._whole.append(whole)

    def shingles(self, at: int) -> set[str]:
        """The runs of three characters of a row in normal form."""
        return shingles(self._whole[at])

    def repeats(self) -> Repeats:
        """How often rows of the split are repeated within it."""
        groups: dict[bytes, list[int]] = defaultdict(list)
        for at, key in enumerate(self.normal):
            groups[key].append(at)
        several = [group for group in groups.values() if len(group) > 1]
        conflicts = [g for g in several if len({self.answers[at] for at in g} - {_UNKNOWN}) > 1]
        example = self._whole[conflicts[0][0]].replace("\n", " / ")[:60] if conflicts else ""
        return Repeats(sum(len(group) - 1 for group in several), len(conflicts), example)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()


def _answer(task: Task, row: Row) -> str:
    target = row["target"]
    if isinstance(task.answer, Options) and target is not None:
        target = row[task.answer.options][target]
    return json.dumps(target, ensure_ascii=False)


def shingles(text: str) -> set[str]:
    """A text's runs of three characters; a shorter text is one."""
    return {text[i : i + _SHINGLE] for i in range(max(1, len(text) - _SHINGLE + 1))}


def jaccard(a: set[str], b: set[str]) -> float:
    """What two sets have in common, of all they have."""
    return len(a & b) / (len(a | b) or 1)


def compare(split: Fingerprints, other: Fingerprints, most_near: int | None = MOST_NEAR) -> Overlap:
    """The rows of a split that another one has as well."""
    exact, normal = {*other.exact}, {*other.normal}
    parts = {part for row in other.parts for part in row}
    same = {at for at, key in enumerate(split.normal) if key in normal}
    near = same | _near(split, other, same, most_near)
    shared = {
        at for at, row in enumerate(split.parts) if at not in near and any(p in parts for p in row)
    }
    ordered = {*other.ordered}
    compared = max(len(split.normal), len(other.normal))

    def numbers(places: Iterable[int]) -> tuple[int, ...]:
        return tuple(split.numbers[at] for at in sorted(places))

    return Overlap(
        split=split.name,
        other=other.name,
        n=len(split.normal),
        n_other=len(other.normal),
        n_near=min(compared, most_near or compared),
        exact=numbers(at for at, key in enumerate(split.exact) if key in exact),
        normalised=numbers(same),
        near=numbers(near),
        shared=numbers(shared),
        swapped=numbers(at for at in same if split.ordered[at] not in ordered),
        contradicting=numbers(_contradicting(split, other)),
    )


def _contradicting(split: Fingerprints, other: Fingerprints) -> Iterator[int]:
    """The rows of `split` whose texts `other` has with other answers alone. Which of two texts is
    the first may change the answer; the order of options may not."""

    def keys(prints: Fingerprints) -> list[bytes]:
        return prints.normal if prints.listed else prints.ordered

    answers: dict[bytes, set[str]] = defaultdict(set)
    for key, answer in zip(keys(other), other.answers, strict=True):
        if answer != _UNKNOWN:
            answers[key].add(answer)
    for at, (key, answer) in enumerate(zip(keys(split), split.answers, strict=True)):
        if answer != _UNKNOWN and key in answers and answer not in answers[key]:
            yield at


def _near(split: Fingerprints, other: Fingerprints, known: set[int], most: int | None) -> set[int]:
    """The rows of `split`, without the known ones, with a near duplicate in `other`."""
    from datasketch import MinHashLSH

    index = MinHashLSH(threshold=_LOOSE, num_perm=_HASHES)
    with index.insertion_session() as session:
        for at, sketch in zip(*_sketches(other, set(), most), strict=True):
            session.insert(at, sketch)
    near = set()
    for at, sketch in zip(*_sketches(split, known, most), strict=True):
        if candidates := index.query(sketch):
            own = split.shingles(at)
            if any(jaccard(own, other.shingles(c)) >= NEAR for c in candidates):
                near.add(at)
    return near


def _sketches(
    split: Fingerprints, without: set[int], most: int | None
) -> tuple[list[int], Iterator[Any]]:
    """The places of rows, evenly spread if there are more than `most`, and their MinHashes."""
    from datasketch import MinHash

    places = [at for at in range(len(split.normal)) if at not in without]
    if most is not None and len(places) > most:
        places = [places[i * len(places) // most] for i in range(most)]
    encoded = ([s.encode("utf-8", "surrogatepass") for s in split.shingles(at)] for at in places)
    return places, MinHash.generator(encoded, num_perm=_HASHES, seed=1)


def overlaps_of_test(task: Task, splits: Mapping[str, Split]) -> dict[str, Overlap]:
    """The rows of test that train and dev have as well, by the other split's name."""
    others = [name for name in ("train", "dev") if name in splits]
    origins = {name: vars(o) if (o := splits[name].rows.origin) else None for name in splits}
    key = json.dumps([VERSION, task.name, task.shown, origins], sort_keys=True)
    name = hashlib.sha256(key.encode()).hexdigest()[:32]
    file = cache_dir("overlap") / f"{name}.json"
    form = TypeAdapter(dict[str, Overlap])
    with contextlib.suppress(OSError, ValueError):  # absent or damaged
        return form.validate_json(file.read_bytes())
    test = Fingerprints(task, splits["test"])
    overlaps = {name: compare(test, Fingerprints(task, splits[name])) for name in others}
    with contextlib.suppress(OSError):  # a full disk costs only time
        write_atomically(file, form.dump_json(overlaps).decode())
    return overlaps


def in_corpus(rows: Sequence[Sequence[str]], documents: Iterable[str]) -> set[int]:
    """The numbers of rows one of whose texts has WINDOW characters in a row, in normal form, that a
    document of a corpus has as well."""
    windows: dict[str, set[int]] = defaultdict(set)
    for number, row in enumerate(rows):
        for text in map(normalised, row):
            for i in range(len(text) - WINDOW + 1):
                windows[text[i : i + WINDOW]].add(number)
    hit: set[int] = set()
    for document in documents:
        text = normalised(document)
        for i in range(len(text) - WINDOW + 1):
            if (rows_of := windows.get(text[i : i + WINDOW])) is not None:
                hit |= rows_of
    return hit
