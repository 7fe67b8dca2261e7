"""A data set's card as text, JSON or a page of HTML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from cpm_tune.analysis.card import Card, Lengths, SplitCard, overlap_text, percent
from cpm_tune.analysis.page import Table, as_html, as_text


def render(card: Card, style: str) -> str:
    """The card as text, json or html."""
    if style == "json":
        values = asdict(card) | {
            "constant": card.constant and card.constant.model_dump(),
            "shortcuts": {name: each.model_dump() for name, each in card.shortcuts.items()},
        }
        return json.dumps(values, ensure_ascii=False, indent=1)
    findings = card.findings or ("nothing that would make scores say less than they seem to",)
    lines = [f"finding: {finding}" for finding in findings]
    make = as_html if style == "html" else as_text
    return make(f"{card.task}: {card.folder}", lines, list(_tables(card)))


def _tables(card: Card) -> Iterator[Table]:
    header: tuple[str, ...] = (
        "split",
        "files",
        "rows",
        "skipped",
        "repeated",
        "with several answers",
    )
    rows: list[tuple[str, ...]] = [
        (
            *(split.name, split.files, f"{split.n:,}", f"{split.n_skipped:,}"),
            f"{split.repeated:,}",
            f"{split.conflicting:,}" if split.labelled else "no answers",
        )
        for split in card.splits
    ]
    if any(split.in_corpus is not None for split in card.splits):
        header = (*header, "with text of the corpus")
        rows = [(*row, f"{s.in_corpus:,}") for row, s in zip(rows, card.splits, strict=True)]
    yield Table("Splits", header, rows)
    yield Table("Lengths", ("split", "of", "median", "95%", "longest"), [*_lengths(card.splits)])
    if answers := [
        (split.name, answer, f"{n:,}", percent(n, split.n))
        for split in card.splits
        for answer, n in split.answers.items()
    ]:
        yield Table("Answers", ("split", "answer", "rows", "share"), answers)
    shared = [
        (
            *(o.split, o.other, f"{len(o.near):,}", percent(len(o.near), o.n), overlap_text(o)),
            *(f"{len(o.shared):,}", percent(len(o.shared), o.n)),
        )
        for o in card.overlaps
    ]
    if shared:
        header = ("rows of", "that are in", "rows", "share", "of them")
        yield Table("Overlap", (*header, "others with a common text", "share"), shared)
    controls = ({"one answer": card.constant} if card.constant else {}) | dict(card.shortcuts)
    if controls:
        yield Table(
            f"Test {card.metric} without a model",
            ("shortcut", "score", "95% interval", "what it is"),
            [
                (name, f"{c.value:.4f}", f"[{c.low:.4f}, {c.high:.4f}]", c.note)
                for name, c in controls.items()
            ],
        )


def _lengths(splits: Sequence[SplitCard]) -> Iterator[tuple[str, ...]]:
    def numbers(lengths: Lengths) -> tuple[str, str, str]:
        return f"{lengths.median:,}", f"{lengths.p95:,}", f"{lengths.longest:,}"

    for split in splits:
        for name, lengths in split.lengths.items():
            yield (split.name, f"{name}, characters", *numbers(lengths))
        if (cut := split.truncation) is not None:
            what = f"sequences, tokens ({percent(cut.truncated, cut.n)} cut to {cut.length})"
            yield (split.name, what, *numbers(cut.tokens))
