"""Text to a prepared corpus in one pass: filter, de-duplicate, split by document, tokenise.

Documents stream through; what stays in memory is 8 bytes per distinct paragraph, one counter per
vocabulary entry and source, and a few documents.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cpm_tune.backbone.tokenizer import MAX_WORD, Tokenizer
from cpm_tune.errors import UserError
from cpm_tune.pretrain import filters
from cpm_tune.pretrain.dedup import SHARE, SeenParagraphs
from cpm_tune.pretrain.sources import Document, Source, documents
from cpm_tune.pretrain.store import (
    DESCRIPTION,
    FORMAT,
    VERSION,
    VOCABULARY,
    Corpus,
    SplitWriter,
)
from cpm_tune.record import write_atomically

DUPLICATE = "seen before"
CHUNK = 64
Perplexities = Callable[[Sequence[str]], Sequence[float]]


class FastEncoder:
    """`Tokenizer.encode`, with a short cut for lines that only have one-character entries.

    jieba only decides where longer entries may begin and end: a line none of whose characters
    begins a longer entry comes out as its characters, however it is segmented.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._single = {entry: i for entry, i in tokenizer.ids.items() if len(entry) == 1}
        self._begins = {entry[0] for entry in tokenizer.ids if len(entry) > 1}

    def encode(self, text: str) -> list[int]:
        """Ids of a text without special entries around it."""
        ids: list[int] = []
        unknown, newline = self.tokenizer.unk, self._single.get("\n", self.tokenizer.unk)
        for number, line in enumerate(text.split("\n")):
            if number:
                ids.append(newline)
            if len(line) <= MAX_WORD and self._begins.isdisjoint(line):
                ids.extend(self._single.get(character, unknown) for character in line)
            else:
                ids.extend(self.tokenizer.encode(line))
        return ids


def is_heldout(source: str, identity: str, share: float) -> bool:
    """Whether a document is kept from training: by a hash of source and id, nothing else."""
    digest = hashlib.blake2b(f"{source}\x1f{identity}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64


def prepare(
    sources: Sequence[Source],
    vocabulary: Path,
    out: Path,
    *,
    words: filters.WordList | None = None,
    perplexities: Perplexities | None = None,
    max_perplexity: float = 0.0,
    report: Callable[[str], None] = lambda text: None,
) -> Corpus:
    """Write a prepared corpus to `out` and return it.

    Sources are de-duplicated in the order given (an earlier source keeps what two share).
    `perplexities` maps texts to their perplexities per character under some backbone. Raises
    UserError for unreadable input, and if `out` is there already or nothing is left of a source.
    """
    if (out / DESCRIPTION).exists():
        raise UserError(f"{out}: a prepared corpus is there already; choose another folder.")
    tokenizer = Tokenizer.from_file(vocabulary)
    encoder = FastEncoder(tokenizer)
    dtype = np.uint16 if len(tokenizer) <= 2**16 else np.uint32
    out.mkdir(parents=True, exist_ok=True)
    seen = SeenParagraphs()
    about: dict[str, Any] = {}
    for source in sources:
        counts: Counter[str] = Counter()
        unigram = np.zeros(len(tokenizer), dtype=np.int64)
        kept = _kept(source, counts, seen, words, perplexities, max_perplexity)
        with ExitStack() as stack:
            writers = {
                split: stack.enter_context(SplitWriter(out, source.name, split, dtype))
                for split in ("train", "heldout")
            }
            for document in kept:
                ids = encoder.encode(document.text)
                known = [i for i in ids if i != tokenizer.unk]
                counts["unknown tokens removed"] += len(ids) - len(known)
                if not known:
                    continue
                held = is_heldout(source.name, document.id, source.heldout)
                writers["heldout" if held else "train"].add(known)
                if not held:
                    unigram += np.bincount(known, minlength=len(tokenizer))
        if writers["train"].documents == 0:
            raise UserError(
                f"source '{source.name}': no training document is left of "
                f"{counts['documents']:,}; removed: {_removed(counts) or 'none'}. Loosen its rules."
            )
        np.save(out / f"{source.name}.unigram.npy", unigram)
        about[source.name] = _about(source, counts, writers)
        report(_line(source.name, about[source.name]))
    (out / VOCABULARY).write_bytes(vocabulary.read_bytes())
    description = {
        "format": FORMAT,
        "version": VERSION,
        "vocab_size": len(tokenizer),
        "vocab_sha256": hashlib.sha256(vocabulary.read_bytes()).hexdigest(),
        "duplicate_share": SHARE,
        "distinct_paragraphs": len(seen),
        "max_perplexity": max_perplexity if perplexities else None,
        "sensitive_words": len(words.words) if words else 0,
        "sources": about,
    }
    write_atomically(out / DESCRIPTION, json.dumps(description, indent=1) + "\n")
    return Corpus.open(out)


def _kept(
    source: Source,
    counts: Counter[str],
    seen: SeenParagraphs,
    words: filters.WordList | None,
    perplexities: Perplexities | None,
    max_perplexity: float,
) -> Iterator[Document]:
    """The documents that pass all stages, cleaned; counts what each stage removes."""
    stream = documents(source)
    while chunk := list(islice(stream, CHUNK)):
        passed = []
        for document in chunk:
            counts["documents"] += 1
            counts["characters"] += len(document.text)
            text = filters.clean(document.text, source.rules)
            reason = filters.reason_to_drop(text, source.rules)
            if reason is None and words is not None and words.found_in(text):
                reason = filters.SENSITIVE
            if reason is None:
                passed.append(Document(document.id, text))
            else:
                counts[reason] += 1
        if perplexities is not None and passed:
            values = perplexities([document.text for document in passed])
            fluent = [d for d, v in zip(passed, values, strict=True) if v <= max_perplexity]
            counts[filters.PERPLEXITY] += len(passed) - len(fluent)
            passed = fluent
        for document in passed:
            if seen.is_duplicate(document.text):
                counts[DUPLICATE] += 1
            else:
                counts["kept"] += 1
                counts["kept characters"] += len(document.text)
                yield document


_STAGES = (*filters.REASONS, filters.SENSITIVE, filters.PERPLEXITY, DUPLICATE)


def _about(source: Source, counts: Counter[str], writers: dict[str, SplitWriter]) -> dict[str, Any]:
    return {
        "weight": source.weight,
        "heldout_share": source.heldout,
        "rules": asdict(source.rules),
        "read": {"documents": counts["documents"], "characters": counts["characters"]},
        "removed": {stage: counts[stage] for stage in _STAGES},
        "kept": {"documents": counts["kept"], "characters": counts["kept characters"]},
        "unknown_tokens_removed": counts["unknown tokens removed"],
        **{
            split: {
                "documents": writer.documents,
                "tokens": writer.tokens.length,
                "sha256": writer.tokens.sha256.hexdigest(),
            }
            for split, writer in writers.items()
        },
    }


def _removed(counts: Counter[str]) -> str:
    return ", ".join(f"{stage} {counts[stage]:,}" for stage in _STAGES if counts[stage])


def _line(name: str, about: dict[str, Any]) -> str:
    removed = ", ".join(f"{stage} {n:,}" for stage, n in about["removed"].items() if n)
    return (
        f"{name}: {about['read']['documents']:,} documents read; removed: {removed or 'none'}; "
        f"train {about['train']['documents']:,} documents, {about['train']['tokens']:,} tokens; "
        f"held out {about['heldout']['documents']:,}, {about['heldout']['tokens']:,} tokens; "
        f"{about['unknown_tokens_removed']:,} unknown tokens removed"
    )
