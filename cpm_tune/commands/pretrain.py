"""The parts of the command `pretrain`: vocab, prepare, run."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import fields

from cpm_tune.backbone.bundled import resolve
from cpm_tune.backbone.families import pretrainings
from cpm_tune.commands.options.pretrain import Prepare, Run, SourceOptions, Vocab
from cpm_tune.common.progress import told
from cpm_tune.errors import UserError
from cpm_tune.pretrain.evaluate import perplexity_under
from cpm_tune.pretrain.filters import WordList
from cpm_tune.pretrain.options import PretrainRequest
from cpm_tune.pretrain.prepare import prepare as prepare_corpus
from cpm_tune.pretrain.sources import TextSource, read_sources, sources_of_files
from cpm_tune.pretrain.start import start
from cpm_tune.pretrain.vocabulary import (
    build_vocabulary,
    cover_text,
    new_file,
    train_vocabulary,
    write,
)


def vocab(options: Vocab) -> int:
    """Build a vocabulary."""
    new_file(options.out)
    kind, sources = pretrainings()[options.kind], _sources(options)
    cover = cover_text(options.cover)
    content = train_vocabulary(kind, sources, options.size, cover)
    if content is None:
        entries = build_vocabulary(
            sources,
            options.size,
            front=kind.front,
            back=kind.back,
            words=options.words,
            pieces=options.pieces,
            cover=cover,
            report=_reporter(options.quiet),
        )
        content = ("\n".join(entries) + "\n").encode()
    write(options.out, content)
    print(f"{options.out}: {len(kind.tokenizer(options.out)):,} entries")
    return 0


def prepare(options: Prepare) -> int:
    """Make a corpus folder."""
    word_file = options.sensitive_words
    prepare_corpus(
        _sources(options),
        options.vocab,
        options.out,
        words=WordList.from_file(word_file) if word_file else None,
        perplexities=perplexity_under(resolve(options.under)) if options.under else None,
        max_perplexity=options.max_perplexity or 0.0,
        report=_reporter(options.quiet),
    )
    print(f"corpus     {options.out}/corpus.json  written")
    return 0


def run(options: Run) -> int:
    """Train on a corpus folder."""
    chosen = {field.name: getattr(options, field.name) for field in fields(PretrainRequest)}
    pairs = _pairs(options.weight, "--weight")
    chosen["weights"] = {name: _weight(name, text) for name, text in pairs.items()}
    start(PretrainRequest(**chosen), report=_reporter(options.quiet))
    return 0


def _sources(options: SourceOptions) -> list[TextSource]:
    settings = _pairs(options.settings, "--set")
    if options.sources:
        return read_sources(options.sources, settings)
    return sources_of_files(options.files, settings)


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not (sign and key and value):
            raise UserError(f"{option} {text}: expected KEY=VALUE.")
        if key in pairs:
            raise UserError(f"{option} {text}: {key} is already {pairs[key]}; give it once.")
        pairs[key] = value
    return pairs


def _weight(name: str, text: str) -> float:
    value = math.nan
    with contextlib.suppress(ValueError):
        value = float(text)
    if not (value >= 0 and math.isfinite(value)):
        raise UserError(f"--weight {name}={text}: expected a number from 0.")
    return value


def _reporter(quiet: bool) -> Callable[[str], None]:
    return (lambda _: None) if quiet else _report


def _report(text: str) -> None:
    """Print a line; the work continues if nobody reads it any more (`| head`)."""
    with contextlib.suppress(BrokenPipeError):
        print(text, flush=True)
    told()
