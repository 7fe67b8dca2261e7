"""Text to a prepared corpus in one pass: filter, de-duplicate, split by document, tokenise.

Documents stream through; what stays in memory is 8 bytes per distinct paragraph, one counter per
vocabulary entry and source, and a few documents.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cpm_tune.backbone.families import pretraining_of
from cpm_tune.backbone.tokens import Tokenizer
from cpm_tune.common.folders import disk_trouble, new_folder
from cpm_tune.common.progress import working
from cpm_tune.errors import UserError
from cpm_tune.pretrain import filters
from cpm_tune.pretrain.dedup import SHARE, SeenParagraphs
from cpm_tune.pretrain.filters import REASONS
from cpm_tune.pretrain.sources import Document, TextSource, check_files, documents
from cpm_tune.pretrain.store import (
    DESCRIPTION,
    FIRST_KIND,
    FORMAT,
    SPLITS,
    VERSION,
    Corpus,
    GrowingArray,
    SplitWriter,
)

DUPLICATE = "seen before"
HANDFUL = 10  # a source of at most so many documents is not reported if none is held out
CHUNK = 64  # documents judged at a time
Perplexities = Callable[[Sequence[str]], Sequence[float]]


def is_heldout(source: str, identity: str, share: float) -> bool:
    """Whether a document is kept from training: by a hash of source and id, nothing else."""
    digest = hashlib.blake2b(f"{source}\x1f{identity}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64


def prepare(
    sources: Sequence[TextSource],
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
    `perplexities` maps texts to their perplexities per character under some backbone. `out` must be
    new or empty; it is complete or, after an error or a signal, as it was before. Raises UserError
    for unreadable input, if nothing is left of a source, and if `out` cannot be written.
    """
    check_files(sources)
    kind = pretraining_of(vocabulary)
    tokenizer = kind.tokenizer(vocabulary)
    vocabulary_bytes = vocabulary.read_bytes()
    seen = SeenParagraphs()
    about: dict[str, Any] = {}
    with disk_trouble(f"--out {out}", "make room, or choose another path"), new_folder(out) as part:
        for source in sources:
            counts: Counter[str] = Counter()
            kept = _kept(source, counts, seen, words, perplexities, max_perplexity)
            about[source.name] = _write(source, kept, counts, tokenizer, part)
            report(_line(source.name, about[source.name]))
            if source.heldout and not about[source.name]["heldout"]["documents"]:
                _note_nothing_held_out(source, about[source.name], report)
        description = {
            "format": FORMAT,
            "version": VERSION,
            **({} if kind.name == FIRST_KIND else {"vocab_kind": kind.name}),
            "vocab_size": len(tokenizer),
            "vocab_sha256": hashlib.sha256(vocabulary_bytes).hexdigest(),
            "duplicate_share": float(SHARE),
            "distinct_paragraphs": len(seen),
            "max_perplexity": max_perplexity if perplexities else None,
            "sensitive_words": len(words.words) if words else 0,
            "sources": about,
        }
        (part / kind.vocabulary).write_bytes(vocabulary_bytes)
        (part / DESCRIPTION).write_text(
            json.dumps(description, indent=1) + "\n", encoding="utf-8", newline="\n"
        )
    return Corpus.open(out)


def _write(
    source: TextSource,
    kept: Iterable[Document],
    counts: Counter[str],
    tokenizer: Tokenizer,
    out: Path,
) -> dict[str, Any]:
    """Tokenise the documents of a source into its files; return its entry of corpus.json."""
    unigram = np.zeros(len(tokenizer), dtype=np.int64)
    dtype = np.uint16 if len(tokenizer) <= 2**16 else np.uint32
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(closing(SplitWriter(out, source.name, split, dtype)))
            for split in SPLITS
        }
        for document in kept:
            ids = tokenizer.encode(document.text)
            known = [i for i in ids if i != tokenizer.unk]
            counts["unknown tokens removed"] += len(ids) - len(known)
            if not known:
                continue
            heldout = is_heldout(source.name, document.id, source.heldout)
            writers["heldout" if heldout else "train"].add(known)
            if not heldout:
                unigram += np.bincount(known, minlength=len(tokenizer))
    if writers["train"].documents == 0:
        n_heldout = writers["heldout"].documents
        removed = _removed(counts, source.rules)
        if unknown := counts["kept"] - n_heldout:
            removed.append(f"no known character {unknown:,}")
        raise UserError(
            f"source '{source.name}': no training document is left of {counts['documents']:,}; "
            f"held out: {n_heldout:,}; removed: {', '.join(removed) or 'none'}. Loosen its rules "
            "with --set. In a text file, blank lines separate documents."
        )
    with closing(GrowingArray(out / f"{source.name}.unigram.npy", np.int64)) as array:
        array.append(unigram)
    return _about(source, counts, writers)


def _kept(
    source: TextSource,
    counts: Counter[str],
    seen: SeenParagraphs,
    words: filters.WordList | None,
    perplexities: Perplexities | None,
    max_perplexity: float,
) -> Iterator[Document]:
    """The documents that pass all stages, cleaned; counts what each stage removes."""
    stream = _filtered(source, counts, words)
    if perplexities is not None:
        stream = _fluent(stream, counts, perplexities, max_perplexity)
    with working(f"reading {source.name}") as work:
        for document in stream:
            work.at(0, f"{counts['documents']:,} documents so far")
            if seen.is_duplicate(document.text):
                counts[DUPLICATE] += 1
            else:
                counts["kept"] += 1
                counts["kept characters"] += len(document.text)
                yield document


def _filtered(
    source: TextSource, counts: Counter[str], words: filters.WordList | None
) -> Iterator[Document]:
    for document in documents(source):
        counts["documents"] += 1
        counts["characters"] += len(document.text)
        text = filters.clean(document.text, source.rules)
        reason = filters.reason_to_drop(text, source.rules)
        if reason is None and words is not None and words.occur_in(text):
            reason = filters.SENSITIVE
        if reason is None:
            yield Document(document.id, text)
        else:
            counts[reason] += 1


def _fluent(
    stream: Iterator[Document],
    counts: Counter[str],
    perplexities: Perplexities,
    max_perplexity: float,
) -> Iterator[Document]:
    while chunk := list(islice(stream, CHUNK)):
        values = perplexities([document.text for document in chunk])
        fluent = [d for d, v in zip(chunk, values, strict=True) if v <= max_perplexity]
        counts[filters.PERPLEXITY] += len(chunk) - len(fluent)
        yield from fluent


_STAGES = (*REASONS, filters.SENSITIVE, filters.PERPLEXITY, DUPLICATE)


def _about(
    source: TextSource, counts: Counter[str], writers: dict[str, SplitWriter]
) -> dict[str, Any]:
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


def _note_nothing_held_out(
    source: TextSource, about: dict[str, Any], report: Callable[[str], None]
) -> None:
    if (n := about["train"]["documents"]) > HANDFUL:
        report(
            f"note: source '{source.name}': heldout is {source.heldout:g}, but none of its {n:,} "
            "documents is held out, so its loss cannot be measured. Document ids decide the split: "
            "give each document its own id, or a greater heldout."
        )


def _removed(counts: Counter[str], rules: filters.Rules) -> list[str]:
    """How many documents each stage removed, with the rule and its limit."""
    limits = {stage: f" ({rule} is {getattr(rules, rule):g})" for stage, rule in REASONS.items()}
    return [
        f"{stage} {counts[stage]:,}{limits.get(stage, '')}" for stage in _STAGES if counts[stage]
    ]


def _line(name: str, about: dict[str, Any]) -> str:
    removed = ", ".join(f"{stage} {n:,}" for stage, n in about["removed"].items() if n)
    return (
        f"{name}: {about['read']['documents']:,} documents read; removed: {removed or 'none'}; "
        f"train {about['train']['documents']:,} documents, {about['train']['tokens']:,} tokens; "
        f"held out {about['heldout']['documents']:,}, {about['heldout']['tokens']:,} tokens; "
        f"{about['unknown_tokens_removed']:,} unknown tokens removed"
    )
