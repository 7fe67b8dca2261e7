"""From what the user asked for to a checked run: weights, vocabulary, corpus and settings agree."""

from __future__ import annotations

import difflib
import json
import os
import re
import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cpm_tune.backbone.bundled import resolve
from cpm_tune.backbone.checkpoint import load_weights, random_backbone
from cpm_tune.backbone.config import CPMAntConfig
from cpm_tune.backbone.folder import open_folder
from cpm_tune.backbone.tokenizer import Tokenizer
from cpm_tune.common.reading import read_json
from cpm_tune.common.writing import write_atomically
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.pretrain.folder import new_folder, old_folder
from cpm_tune.pretrain.optimise import largest_rate
from cpm_tune.pretrain.options import Request
from cpm_tune.pretrain.sources import MAX_WEIGHT
from cpm_tune.pretrain.store import Corpus
from cpm_tune.pretrain.train import Intervals, Settings, train

FILE, CHECKPOINT = "run.json", "checkpoint.pt"


_OWN = (
    *("rows", "width", "shortest", "lr", "last_lr", "warmup", "optimiser", "weight_decay", "seed"),
)
_INTERVALS = ("log_steps", "checkpoint_minutes", "heldout_minutes")
_PATHS = ("corpus", "config", "backbone")
_LEFTOVERS = re.compile(r"(run\.json|log\.jsonl)(\.part)?|checkpoint\.pt\.part")


def start(request: Request, report: Callable[[str], None]) -> None:
    """Check everything, then train. Raises UserError for whatever does not fit."""
    out, request = request.out, _with_whole_paths(request)
    if request.resume:
        request = _of_before(request)
    elif (out / CHECKPOINT).exists():
        raise UserError(f"{out}: a run is there already; use --resume, or another --out.")
    leftovers = re.compile(r"run\.json\.part")
    if not request.resume and (out / FILE).exists():
        _read(out)  # raises unless it is ours: an attempt that came to no checkpoint
        leftovers = _LEFTOVERS
    if request.corpus is None:
        raise UserError("--corpus is missing: a folder made by `pretrain prepare`.")
    if (request.config is None) == (request.backbone is None):
        raise UserError("give either --config (random weights) or --backbone (its weights).")
    if not (request.steps or request.seconds):
        raise UserError("give the length of the run: --steps or --seconds.")
    if request.resume and not request.corpus.exists():
        raise UserError(
            f"{request.corpus}: there is no such folder; give with --corpus where the run's corpus "
            "is now."
        )
    corpus = Corpus.open(request.corpus)
    config = _config(request, corpus)
    weights = _weights(request, corpus)

    import torch

    if request.threads:
        torch.set_num_threads(request.threads)
    given = {key: getattr(request, key) for key in _OWN if getattr(request, key) is not None}
    settings = Settings(
        weights=weights,
        steps=request.steps or 0,
        seconds=request.seconds or 0.0,
        bf16=request.precision != "fp32",
        compiled=not request.no_compile,
        **given,
    )
    _check(settings.width, settings.rows, settings.shortest, config)
    if request.backbone is not None and not request.resume:
        model = load_weights(open_folder(request.backbone), torch.float32)
    else:
        model = random_backbone(config, settings.seed, torch.float32)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    intervals = {k: getattr(request, k) for k in _INTERVALS if getattr(request, k) is not None}
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with old_folder(out) if request.resume else new_folder(out, leftovers):
            report(_about(model, settings, corpus))
            train(
                model,
                Tokenizer.from_file(corpus.vocabulary),
                corpus,
                settings,
                out,
                intervals=Intervals(**intervals),
                resume=request.resume,
                begin=lambda: _write(request),
                report=report,
            )
    finally:
        signal.signal(signal.SIGTERM, before)
    report(f"backbone   {out}/backbone")


def _with_whole_paths(request: Request) -> Request:
    """The same request, independent of the current folder."""
    given = {key: getattr(request, key) for key in _PATHS}
    if request.backbone is not None:
        given["backbone"] = resolve(str(request.backbone))
    return replace(request, **{key: path and path.resolve() for key, path in given.items()})


def _write(request: Request) -> None:
    values = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(request).items()}
    text = json.dumps({**values, "resume": False}, indent=1) + "\n"
    try:
        write_atomically(request.out / FILE, text)
    except OSError as error:
        raise UserError(f"--out {request.out}: cannot be written ({error.strerror}).") from error


def _read(out: Path) -> Request:
    """The request of the run in a folder."""
    from pydantic import TypeAdapter, ValidationError

    try:
        values: dict[str, Any] = read_json(out / FILE)
        Request(**values)  # no key that is not ours
        return _with_whole_paths(TypeAdapter(Request).validate_python(values))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{out}: no run to resume.") from error
    except (OSError, ValueError, TypeError) as error:
        why: object = error
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise UserError(f"{out / FILE}: not that of a `pretrain run` ({why}).") from error


def _of_before(request: Request) -> Request:
    """The request that the run was started with; only its length and reporting may change."""
    before = _read(request.out)
    fixed = (*_OWN, "precision", "config", "backbone")
    changed = [key for key in fixed if getattr(request, key) not in (None, getattr(before, key))]
    changed += ["no_compile"] * (request.no_compile > before.no_compile)
    changed += ["weight"] * (request.weights not in ({}, before.weights))
    if changed:
        raise UserError(
            f"--{changed[0].replace('_', '-')} cannot change with --resume; start another run with "
            "--backbone to go on from these weights."
        )
    new = {k: getattr(request, k) for k in (*_INTERVALS, "threads", "corpus")}
    if request.steps or request.seconds:
        new |= {"steps": request.steps, "seconds": request.seconds}
        before = replace(before, steps=None, seconds=None)
    kept = {key: value for key, value in new.items() if value is not None}
    return replace(before, **kept, resume=True, out=request.out)


def _config(request: Request, corpus: Corpus) -> CPMAntConfig:
    """The model's config, checked against the corpus's vocabulary."""
    if request.backbone is not None:
        folder = open_folder(request.backbone)
        corpus.check_vocabulary(folder.vocabulary)
        return folder.config
    assert request.config is not None
    config = CPMAntConfig.from_file(request.config)
    known = CPMAntConfig.keys()
    for key in read_json(request.config).keys() - known:  # configs have others, too
        if meant := difflib.get_close_matches(key, known, n=1, cutoff=0.8):
            raise UserError(
                f"{request.config}: a config has no key '{key}'. Did you mean '{meant[0]}'?"
            )
    if config.vocab_size != corpus.about["vocab_size"]:
        raise UserError(
            f"{request.config}: vocab_size is {config.vocab_size}, but the corpus has "
            f"{corpus.about['vocab_size']} entries."
        )
    return config


def _check(width: int, rows: int, shortest: int, config: CPMAntConfig) -> None:
    if width < config.prompt_length + 4:
        raise UserError(
            f"--width {width}: a row must hold more than its soft prompt ({config.prompt_length})."
        )
    if (room := width - config.prompt_length - 2) < shortest:
        raise UserError(
            f"--width {width}: a row has room for {room} tokens beside the soft prompt "
            f"({config.prompt_length}) and the marks, but pieces have at least --shortest "
            f"{shortest}; widen rows, or lower --shortest."
        )
    bias = 4 * rows * config.num_heads * width**2  # bytes; a step needs several times that
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if bias > memory:
        raise UserError(
            f"--rows {rows} --width {width}: attention alone takes {bias / 1e9:,.0f} GB, more than "
            f"the {memory / 1e9:,.0f} GB of this machine; give less."
        )


def _weights(request: Request, corpus: Corpus) -> dict[str, float]:
    weights = corpus.weights()
    for name, value in request.weights.items():
        if name not in weights:
            raise UserError(f"--weight {name}: no such source.{did_you_mean(name, weights)}")
        if not 0 <= value <= MAX_WEIGHT:
            raise UserError(f"--weight {name}={value:g}: expected 0 to {MAX_WEIGHT:g}.")
        weights[name] = value
    weights = {name: value for name, value in weights.items() if value != 0}
    if not weights:
        raise UserError("--weight: at least one source needs a weight above 0.")
    return weights


def _about(model: Any, settings: Any, corpus: Corpus) -> str:
    n = sum(parameter.numel() for parameter in model.parameters())
    length = f"{settings.steps:,} steps" if settings.steps else f"{settings.seconds:,.0f} seconds"
    note = ""
    if settings.steps:
        rate = largest_rate(settings.lr, settings.last_lr, settings.steps, settings.warmup)
        if rate < 0.9 * settings.lr:
            note = (
                f"\nnote: with a warm-up of {settings.warmup:,} steps the learning rate reaches "
                f"{rate:.2g} at most; for the peak give a smaller --warmup."
            )
    return (
        f"model      {n:,} parameters\n"
        f"corpus     {corpus.path}: {', '.join(settings.weights)}\n"
        f"training   {length}, {settings.rows} rows of {settings.width}, {settings.optimiser}, "
        f"peak lr {settings.lr:g}{note}"
    )
