"""The command `pretrain` and its parts: parse, call, print."""

from __future__ import annotations

import argparse
import contextlib
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cpm_tune.commands.arguments import Parser, make_parser
from cpm_tune.common.interrupt import NOTHING_WRITTEN, Interrupts
from cpm_tune.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from cpm_tune.pretrain.sources import TextSource

ABOUT = """\
Pre-train a CPM-Ant backbone, or go on with one.

  vocab     build a vocabulary from text
  prepare   filter, de-duplicate, split and tokenise text into a corpus folder
  run       train on a corpus folder; --resume continues
"""


def _add_sources(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "files", metavar="FILE", nargs="*", type=Path, help="text or jsonl, a source each"
    )
    p.add_argument("--sources", metavar="FILE", type=Path, help="JSON with named sources instead")
    p.add_argument(
        "--set",
        metavar="[SOURCE.]KEY=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="weight, heldout or a rule such as min_han=0.3 (docs/pretraining.md has their "
        "defaults); repeatable",
    )
    p.add_argument("--debug", action="store_true", help="show tracebacks")


def _sources(args: argparse.Namespace) -> list[TextSource]:
    from cpm_tune.pretrain.sources import read_sources, sources_of_files

    if bool(args.files) == bool(args.sources):
        raise UserError("give either text files or --sources FILE.")
    settings = _pairs(args.settings, "--set")
    if args.sources:
        return read_sources(args.sources, settings)
    return sources_of_files(args.files, settings)


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    result: dict[str, str] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not (sign and key and value):
            raise UserError(f"{option} {text}: expected KEY=VALUE.")
        if key in result:
            raise UserError(f"{option} {text}: {key} is {result[key]} already; give it once.")
        result[key] = value
    return result


def _whole(least: int, most: int = 2**63 - 1) -> Callable[[str], int]:
    """Parse a whole number of a range."""

    def parse(text: str) -> int:
        if not (re.fullmatch(r"[+-]?[0-9]{1,20}", text) and least <= int(text) <= most):
            upto = f" to {most}" if most < 2**63 - 1 else ""
            raise argparse.ArgumentTypeError(
                f"'{text}', expected a whole number from {least}{upto}"
            )
        return int(text)

    return parse


def _number(text: str) -> float:
    """The number that a text spells; NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _real(text: str, most: float = math.inf) -> float:
    """Parse a number from 0 on."""
    value = _number(text)
    if not (0 <= value <= most and math.isfinite(value)):
        upto = f"0 to {most:g}" if math.isfinite(most) else "0 on"
        raise argparse.ArgumentTypeError(f"'{text}', expected a number from {upto}")
    return value


def _positive(text: str) -> float:
    """Parse a number above 0 that fp32 can hold with room to spare."""
    value = _number(text)
    if not 0 < value <= 1e30:
        raise argparse.ArgumentTypeError(f"'{text}', expected a number above 0, at most 1e30")
    return value


def _share(text: str) -> float:
    """Parse a number from 0 to 1."""
    return _real(text, 1.0)


def _say(text: str) -> None:
    """Print a line; the work goes on if nobody reads it any more (`| head`)."""
    with contextlib.suppress(BrokenPipeError):
        print(text, flush=True)


def _vocab(argv: Sequence[str], prog: str) -> int:
    p = make_parser(
        f"{prog} pretrain vocab",
        "Build a vocabulary: required entries, GB 2312 level 1, then the most frequent.",
        f"example:\n  {prog} pretrain vocab --sources corpus/sources.json --size 6500 --pieces 500 "
        "--out vocab.txt",
    )
    _add_sources(p)
    p.add_argument("--size", type=_whole(1), default=6500, help="entries in all (default: 6500)")
    p.add_argument(
        "--words", type=_whole(0), default=0, help="Chinese words among them (default: 0)"
    )
    p.add_argument(
        "--pieces", type=_whole(0), default=0, help="Latin words and pieces (default: 0)"
    )
    p.add_argument(
        "--cover",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="every character of this file becomes an entry; repeatable",
    )
    p.add_argument("--out", metavar="FILE", type=Path, required=True)
    args = p.parse_args(argv)
    from cpm_tune.pretrain.vocabulary import build_vocabulary, cover_text, new_file, write

    new_file(args.out)
    entries = build_vocabulary(
        _sources(args),
        args.size,
        words=args.words,
        pieces=args.pieces,
        cover=cover_text(args.cover),
        report=_say,
    )
    write(args.out, entries)
    print(f"{args.out}: {len(entries):,} entries")
    return 0


def _prepare(argv: Sequence[str], prog: str) -> int:
    p = make_parser(
        f"{prog} pretrain prepare",
        "Filter, de-duplicate, split by document and tokenise text into a corpus folder.",
        f"example:\n  {prog} pretrain prepare --sources corpus/sources.json --vocab vocab.txt "
        "--out prepared",
    )
    _add_sources(p)
    p.add_argument("--vocab", metavar="FILE", type=Path, required=True)
    p.add_argument("--sensitive-words", metavar="FILE", type=Path, help="drop documents with one")
    p.add_argument(
        "--max-perplexity", metavar="X", type=_positive, help="per character, --under it"
    )
    p.add_argument("--under", metavar="NAME|DIR", help="the backbone that judges perplexity")
    p.add_argument("--out", metavar="DIR", type=Path, required=True)
    args = p.parse_args(argv)
    if (args.max_perplexity is None) != (args.under is None):
        p.error("--max-perplexity and --under go together")
    from cpm_tune.pretrain.filters import WordList
    from cpm_tune.pretrain.prepare import prepare

    judge = None
    if args.under:
        from cpm_tune.backbone.bundled import resolve
        from cpm_tune.pretrain.evaluate import perplexity_under

        judge = perplexity_under(resolve(args.under))
    prepare(
        _sources(args),
        args.vocab,
        args.out,
        words=WordList.from_file(args.sensitive_words) if args.sensitive_words else None,
        perplexities=judge,
        max_perplexity=args.max_perplexity or 0.0,
        report=_say,
    )
    print(f"corpus     {args.out}/corpus.json  written")
    return 0


def _run(argv: Sequence[str], prog: str) -> int:
    p = _run_parser(prog)
    args = p.parse_args(argv)
    from cpm_tune.pretrain.start import PretrainRequest, start

    given = {k: v for k, v in vars(args).items() if v is not None and k not in ("weight", "debug")}
    pairs = _pairs(args.weight, "--weight")
    try:
        weights = {name: _real(value) for name, value in pairs.items()}
        start(PretrainRequest(**given, weights=weights), report=_say)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"--weight: {error}.") from error
    return 0


def _run_parser(prog: str) -> Parser:
    p = make_parser(
        f"{prog} pretrain run",
        "Train on a prepared corpus. Writes log.jsonl, checkpoint.pt and the folder backbone.",
        f"examples:\n  {prog} pretrain run --corpus prepared --config tiny.json --seconds 4500 "
        f"--out tiny\n  {prog} pretrain run --corpus prepared --backbone DIR --steps 99 --out on\n"
        f"  {prog} pretrain run --out tiny --resume",
    )
    p.add_argument("--out", metavar="DIR", type=Path, required=True)
    p.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    p.add_argument("--corpus", metavar="DIR", type=Path, help="made by `pretrain prepare`")
    start = p.add_mutually_exclusive_group()
    start.add_argument(
        "--config", metavar="FILE", type=Path, help="JSON; start from random weights"
    )
    start.add_argument("--backbone", metavar="NAME|DIR", type=Path, help="start from its weights")
    length = p.add_mutually_exclusive_group()
    length.add_argument("--steps", type=_whole(1), help="length of the run in optimiser steps")
    length.add_argument("--seconds", type=_positive, help="or in seconds of training")
    p.add_argument(
        "--weight",
        metavar="SOURCE=X",
        action="append",
        default=[],
        help="share of the rows (default: as prepared; 0 leaves a source out); repeatable",
    )
    p.add_argument("--rows", type=_whole(1, 2**20), help="rows a step (default: 16)")
    p.add_argument("--width", type=_whole(1, 2**20), help="tokens a row (default: 256)")
    p.add_argument(
        "--shortest", type=_whole(1, 2**20), help="least tokens of a piece (default: 32)"
    )
    p.add_argument("--lr", type=_positive, help="peak learning rate (default: 3e-3)")
    p.add_argument("--last-lr", type=_share, help="share of it at the end (default: 0.03)")
    p.add_argument("--warmup", type=_whole(0), help="steps (default: 100)")
    p.add_argument("--optimiser", choices=["muon", "adamw"], help="default: muon")
    p.add_argument("--weight-decay", type=_real, help="default: 0.05")
    p.add_argument("--seed", type=_whole(0), help="default: 1")
    p.add_argument("--precision", choices=["bf16", "fp32"], help="default: bf16 autocast")
    p.add_argument("--no-compile", action="store_true", help="without torch.compile")
    p.add_argument("--threads", type=_whole(1, 1024), help="default: PyTorch's choice")
    p.add_argument("--log-steps", type=_whole(1), help="default: 50")
    p.add_argument("--checkpoint-minutes", type=_real, help="default: 5")
    p.add_argument("--heldout-minutes", type=_real, help="default: 10")
    p.add_argument("--debug", action="store_true", help="show tracebacks")
    return p


_PARTS: dict[str, Callable[[Sequence[str], str], int]] = {
    "vocab": _vocab,
    "prepare": _prepare,
    "run": _run,
}


def pretrain(argv: Sequence[str], prog: str) -> int:
    """The command `pretrain`: choose a part."""
    if not argv or argv[0] in ("-h", "--help"):
        make_parser(f"{prog} pretrain", ABOUT).print_help()
        return 0 if argv else 2
    if argv[0] not in _PARTS:
        raise UserError(f"pretrain: there is no part '{argv[0]}'.{did_you_mean(argv[0], _PARTS)}")
    with Interrupts(message=NOTHING_WRITTEN):  # once it has started, a run tells its own
        return _PARTS[argv[0]](argv[1:], prog)
