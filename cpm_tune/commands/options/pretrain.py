"""Options of `pretrain` and its parts: vocab, prepare, run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cpm_tune.common.option import Option
from cpm_tune.errors import UserError
from cpm_tune.pretrain.options import Positive, PretrainRequest
from cpm_tune.schema.options import BackboneName, Count, Natural, ReportOptions


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Pre-train a backbone of CPM-Ant's, CPM-1's or CPM-2's form."""


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Where text comes from."""

    files: Annotated[
        tuple[Path, ...], Option("text or .jsonl file, a source each", "FILE", positional=True)
    ] = ()
    sources: Annotated[
        Path | None, Option("JSON file with named sources, in place of FILE", "FILE")
    ] = None
    settings: Annotated[
        tuple[str, ...],
        Option(
            "weight, heldout, or a rule such as min_han=0.3 (defaults: docs/pretraining.md); "
            "repeatable",
            "[SOURCE.]KEY=VALUE",
            name="set",
        ),
    ] = ()

    def __post_init__(self) -> None:
        if bool(self.files) == bool(self.sources):
            raise UserError("give either text files or --sources FILE.")


@dataclass(frozen=True, kw_only=True)
class Vocab(ReportOptions, SourceOptions):
    """Build a vocabulary: required entries, GB 2312 level 1, then the most frequent.

    examples:
      tune.py pretrain vocab --sources corpus/sources.json --size 6500 --pieces 500 --out vocab.txt
      tune.py pretrain vocab poems.txt --kind sentencepiece --size 11000 --out spiece.model
    """

    kind: Annotated[
        Literal["cpm-ant", "sentencepiece", "cpm-2"],
        Option(
            "form of the vocabulary: CPM-Ant's or CPM-2's entries, or CPM-1's sentencepiece model"
        ),
    ] = "cpm-ant"
    size: Annotated[Count, Option("number of entries")] = 6500
    words: Annotated[Natural, Option("Chinese words among them")] = 0
    pieces: Annotated[Natural, Option("Latin words and pieces among them")] = 0
    cover: Annotated[
        tuple[Path, ...],
        Option("file whose every character becomes an entry; repeatable", "FILE"),
    ] = ()
    out: Annotated[Path, Option("new vocabulary file", "FILE")]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "sentencepiece" and (self.words or self.pieces):
            raise UserError(
                "--words and --pieces: sentencepiece chooses both itself; omit them, or use "
                "--kind cpm-ant."
            )


@dataclass(frozen=True, kw_only=True)
class Prepare(ReportOptions, SourceOptions):
    """Filter, de-duplicate, split by document and tokenise text into a corpus folder.

    examples:
      tune.py pretrain prepare --sources corpus/sources.json --vocab vocab.txt --out prepared
    """

    vocab: Annotated[Path, Option("vocabulary of `pretrain vocab`", "FILE")]
    sensitive_words: Annotated[
        Path | None, Option("drop documents with a word of this file", "FILE")
    ] = None
    max_perplexity: Annotated[
        Positive | None,
        Option("drop documents above this perplexity per character (needs --under)"),
    ] = None
    under: Annotated[BackboneName | None, Option("backbone that measures perplexity")] = None
    out: Annotated[Path, Option("new corpus folder", "DIR")]

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.max_perplexity is None) != (self.under is None):
            raise UserError("--max-perplexity and --under need each other.")


@dataclass(frozen=True)
class Run(ReportOptions, PretrainRequest):
    """Train on a prepared corpus; write log.jsonl, checkpoint.pt and the folder backbone.

    examples:
      tune.py pretrain run --corpus prepared --config tiny.json --seconds 4500 --out tiny
      tune.py pretrain run --corpus prepared --backbone DIR --steps 99 --out on
      tune.py pretrain run --out tiny --resume
    """

    weight: Annotated[
        tuple[str, ...],
        Option(
            "share of a source in the rows; 0 omits it; repeatable",
            "SOURCE=X",
            default="as prepared",
        ),
    ] = ()
