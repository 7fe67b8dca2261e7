"""From the options of `pretrain run` to a checked run: weights, vocabulary, corpus and settings."""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from cpm_tune.backbone.base import Backbone
from cpm_tune.backbone.bundled import resolve
from cpm_tune.backbone.families import open_folder
from cpm_tune.common.faults import faults
from cpm_tune.common.folders import CHECKPOINT, LOG, RECORD, disk_trouble, remove, run_lock
from cpm_tune.common.interrupt import Interrupted, Interrupts
from cpm_tune.common.reading import read_json
from cpm_tune.common.writing import write_atomically
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.pretrain.evaluate import kind_of
from cpm_tune.pretrain.optimise import largest_rate
from cpm_tune.pretrain.options import PretrainRequest
from cpm_tune.pretrain.sources import MAX_WEIGHT
from cpm_tune.pretrain.store import Corpus
from cpm_tune.pretrain.train import Intervals, Settings, train


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class StoredRequest(PretrainRequest):
    """A request as the folder of its run stores it, with checked types."""


_NAMES = {option.name for option in fields(PretrainRequest)}
_SETTINGS = [f.name for f in fields(Settings) if f.name in _NAMES - {"weights", "steps", "seconds"}]
_INTERVALS = [f.name for f in fields(Intervals) if f.name in _NAMES]
_PATHS = ("corpus", "config", "backbone")


def start(request: PretrainRequest, report: Callable[[str], None]) -> None:
    """Check everything, then train.

    Raises UserError for whatever does not fit, and Interrupted for Ctrl-C and SIGTERM.
    """
    if request.backbone is not None:  # of the command line alone: a record downloads nothing
        request = replace(request, backbone=resolve(str(request.backbone)))
    out, request = request.out, _with_whole_paths(request)
    with _interruptible(out), contextlib.ExitStack() as stack:
        if request.resume:
            request = _of_before(request)
        else:
            _leftovers(out)
        if request.corpus is None:
            raise UserError("--corpus is missing: give a corpus folder of `pretrain prepare`.")
        if (request.config is None) == (request.backbone is None):
            raise UserError("give either --config (random weights) or --backbone (its weights).")
        if not (request.steps or request.seconds):
            raise UserError("give the length of the run: --steps or --seconds.")
        if request.resume and not request.corpus.exists():
            raise UserError(
                f"{request.corpus} does not exist. If the run's corpus was moved, give its folder "
                "with --corpus."
            )
        corpus = Corpus.open(request.corpus)
        kind, config = corpus.kind, _config(request, corpus)
        if request.shortest is not None and not kind.pieces:
            raise UserError(
                f"--shortest: documents are laid end to end for {kind.title}, not cut into pieces; "
                "omit it."
            )
        if request.threads:
            torch.set_num_threads(request.threads)
        settings = Settings(
            weights=_weights(request, corpus),
            steps=request.steps or 0,
            seconds=request.seconds or 0.0,
            bf16=request.precision != "fp32",
            compiled=not request.no_compile,
            **{"width": kind.width(config), **_given(request, _SETTINGS)},
        )
        tokenizer = corpus.tokenizer()
        sizes = {"width": settings.width, "shortest": settings.shortest, "rows": settings.rows}
        kind.objective(config, tokenizer, **sizes)
        if request.backbone is not None and not request.resume:
            model = open_folder(request.backbone).open(torch.float32)
        else:
            model = kind.random(config, settings.seed, torch.float32)
        for parameter in model.parameters():
            parameter.requires_grad_(True)

        def lock() -> None:
            busy = f"{out}: another process is working in this folder"
            stack.enter_context(run_lock(out, "pretrain", wait=False, busy=busy))

        def begin() -> None:
            if not request.resume:
                lock()
                for path in _leftovers(out):
                    remove(path)
            _write(request)

        if request.resume:
            lock()
        report(_about(model, settings, corpus))
        train(
            model,
            tokenizer,
            corpus,
            settings,
            out,
            intervals=Intervals(**_given(request, _INTERVALS)),
            resume=request.resume,
            begin=begin,
            report=report,
        )
    report(f"backbone   {out}/backbone")


@contextlib.contextmanager
def _interruptible(out: Path) -> Iterator[None]:
    """Ctrl-C and SIGTERM raise Interrupted, whose text is what they leave in the folder."""
    with Interrupts():
        try:
            yield
        except Interrupted as stop:
            if not str(stop):
                saved = (out / CHECKPOINT).is_file()
                stop.args = (
                    "the last checkpoint is kept, continue with --resume"
                    if saved
                    else "nothing was saved",
                )
            raise


def _leftovers(out: Path) -> list[Path]:
    """The files of an attempt that wrote no checkpoint; UserError if `out` contains others."""
    if (out / CHECKPOINT).exists():
        raise UserError(
            f"{out} already contains a run. Continue it with --resume, or choose another --out."
        )
    names = {f"{RECORD}.part"}
    if (out / RECORD).exists():
        _read(out)  # raises unless it is ours
        names |= {RECORD, LOG, f"{LOG}.part", f"{CHECKPOINT}.part"}
    with disk_trouble(f"--out {out}", "choose another path"):
        paths = [p for p in out.iterdir() if p.name != ".locks"] if out.is_dir() else []
    if foreign := sorted(path.name for path in paths if path.name not in names):
        raise UserError(
            f"--out {out} contains other files ({', '.join(foreign[:3])}). Choose a new or an "
            "empty folder."
        )
    return paths


def _given(request: PretrainRequest, names: list[str]) -> dict[str, Any]:
    """The options of these names that are not left at their defaults."""
    return {name: value for name in names if (value := getattr(request, name)) is not None}


def _with_whole_paths(request: PretrainRequest) -> PretrainRequest:
    """The same request, independent of the current folder."""
    given = {key: getattr(request, key) for key in _PATHS}
    return replace(request, **{key: path and path.resolve() for key, path in given.items()})


def _write(request: PretrainRequest) -> None:
    text = json.dumps({**asdict(request), "resume": False}, indent=1, default=str) + "\n"
    with disk_trouble(f"--out {request.out}", "make room, or choose another path"):
        write_atomically(request.out / RECORD, text)


def _read(out: Path) -> PretrainRequest:
    """The request of the run in a folder."""
    try:
        return _with_whole_paths(StoredRequest(**read_json(out / RECORD)))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{out}: there is no run to resume.") from error
    except (OSError, ValueError, TypeError) as error:
        fault = faults(error)[0] if isinstance(error, ValidationError) else error
        raise UserError(f"{out / RECORD}: not that of a `pretrain run` ({fault}).") from error


def _of_before(request: PretrainRequest) -> PretrainRequest:
    """The request that the run was started with; only its length and reporting may change."""
    before = _read(request.out)
    fixed = (*_SETTINGS, "precision", "config", "backbone")
    changed = [key for key in fixed if getattr(request, key) not in (None, getattr(before, key))]
    changed += ["no_compile"] * (request.no_compile > before.no_compile)
    changed += ["weight"] * (request.weights not in ({}, before.weights))
    if changed:
        raise UserError(
            f"--{changed[0].replace('_', '-')} cannot change with --resume. To continue from these "
            "weights with other settings, start another run with --backbone."
        )
    if request.steps or request.seconds:
        before = replace(before, steps=request.steps, seconds=request.seconds)
    new = _given(request, [*_INTERVALS, "threads", "corpus"])
    return replace(before, **new, resume=True, out=request.out)


def _config(request: PretrainRequest, corpus: Corpus) -> Any:
    """The model's config, checked against the corpus's vocabulary."""
    if request.backbone is not None:
        folder = open_folder(request.backbone)
        vocabulary = kind_of(folder).vocabulary_of(folder)
        assert vocabulary is not None
        corpus.check_vocabulary(vocabulary)
        return folder.config
    assert request.config is not None
    config = corpus.kind.config(request.config)
    known = corpus.kind.keys()
    for key in read_json(request.config).keys() - known:  # configs have others, too
        if meant := difflib.get_close_matches(key, known, n=1, cutoff=0.8):
            raise UserError(
                f"{request.config}: a config has no key '{key}'. Did you mean '{meant[0]}'?"
            )
    if (size := config.shape.vocabulary) != corpus.about["vocab_size"]:
        raise UserError(
            f"{request.config}: vocab_size is {size}, but the corpus has "
            f"{corpus.about['vocab_size']} entries."
        )
    return config


def _weights(request: PretrainRequest, corpus: Corpus) -> dict[str, float]:
    weights = corpus.weights()
    for name, value in request.weights.items():
        if name not in weights:
            raise UserError(
                f"--weight {name}: there is no such source.{did_you_mean(name, weights)}"
            )
        if not 0 <= value <= MAX_WEIGHT:
            raise UserError(f"--weight {name}={value:g}: expected 0 to {MAX_WEIGHT:g}.")
        weights[name] = value
    weights = {name: value for name, value in weights.items() if value != 0}
    if not weights:
        raise UserError("--weight: at least one source needs a weight above 0.")
    return weights


def _about(model: Backbone, settings: Settings, corpus: Corpus) -> str:
    n = sum(parameter.numel() for parameter in model.parameters())
    length = f"{settings.steps:,} steps" if settings.steps else f"{settings.seconds:,.0f} seconds"
    note = ""
    if settings.steps:
        rate = largest_rate(settings.lr, settings.last_lr, settings.steps, settings.warmup)
        if rate < 0.9 * settings.lr:
            note = (
                f"\nnote: with a warm-up of {settings.warmup:,} steps the learning rate reaches at "
                f"most {rate:.2g}. To reach the peak, give a smaller --warmup."
            )
    return (
        f"model      {n:,} parameters\n"
        f"corpus     {corpus.path}: {', '.join(settings.weights)}\n"
        f"training   {length}, {settings.rows} rows of {settings.width}, {settings.optimiser}, "
        f"peak lr {settings.lr:g}{note}"
    )
