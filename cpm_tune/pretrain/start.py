"""From what the user asked for to a checked run: weights, vocabulary, corpus and settings agree."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cpm_tune.backbone.config import CPMAntConfig
from cpm_tune.backbone.tokenizer import Tokenizer
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.pretrain.store import Corpus
from cpm_tune.record import write_atomically

FILE = "run.json"


@dataclass(frozen=True)
class Request:
    """Options of `pretrain run`; None leaves the default of `Settings` or `Intervals`."""

    out: Path
    resume: bool = False
    corpus: Path | None = None
    config: Path | None = None
    backbone: Path | None = None
    steps: int | None = None
    seconds: float | None = None
    weights: dict[str, float] = field(default_factory=dict)
    rows: int | None = None
    width: int | None = None
    shortest: int | None = None
    lr: float | None = None
    last_lr: float | None = None
    warmup: int | None = None
    optimiser: str | None = None
    weight_decay: float | None = None
    seed: int | None = None
    precision: str | None = None
    no_compile: bool = False
    threads: int | None = None
    log_steps: int | None = None
    checkpoint_minutes: float | None = None
    heldout_minutes: float | None = None


_OWN = (
    *("rows", "width", "shortest", "lr", "last_lr", "warmup", "optimiser", "weight_decay", "seed"),
)
_INTERVALS = ("log_steps", "checkpoint_minutes", "heldout_minutes")


def start(request: Request, report: Callable[[str], None]) -> None:
    """Check everything, then train. Raises UserError for whatever does not fit."""
    out = request.out
    if request.resume:
        request = _of_before(request)
    elif (out / FILE).exists():
        raise UserError(f"{out}: a run is there already; use --resume, or another --out.")
    if request.corpus is None:
        raise UserError("--corpus is missing: a folder made by `pretrain prepare`.")
    if (request.config is None) == (request.backbone is None):
        raise UserError("give either --config (random weights) or --backbone (its weights).")
    if not (request.steps or request.seconds):
        raise UserError("give the length of the run: --steps or --seconds.")
    if (request.steps or 0) < 0 or (request.seconds or 0) < 0:
        raise UserError("--steps and --seconds must be positive.")
    corpus = Corpus.open(request.corpus)
    config = _config(request, corpus)
    weights = _weights(request, corpus)

    import torch

    from cpm_tune.backbone.checkpoint import load_weights, open_folder, random_backbone
    from cpm_tune.pretrain.train import Intervals, Settings, train

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
    _check(settings.width, settings.rows, config)
    if request.backbone is not None:
        model = load_weights(open_folder(request.backbone), torch.float32)
    else:
        model = random_backbone(config, settings.seed, torch.float32)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    if not request.resume:
        out.mkdir(parents=True, exist_ok=True)
        values = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(request).items()}
        write_atomically(out / FILE, json.dumps(values, indent=1) + "\n")
    report(_about(model, settings, corpus))
    intervals = {k: getattr(request, k) for k in _INTERVALS if getattr(request, k) is not None}
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it saves first
    try:
        train(
            model,
            Tokenizer.from_file(corpus.vocabulary),
            corpus,
            settings,
            out,
            intervals=Intervals(**intervals),
            resume=request.resume,
            report=report,
        )
    finally:
        signal.signal(signal.SIGTERM, before)
    report(f"backbone   {out}/backbone  written")


def _of_before(request: Request) -> Request:
    """The request that the run was started with; only its length and reporting may change."""
    file = request.out / FILE
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        for key in ("out", "corpus", "config", "backbone"):
            values[key] = Path(values[key]) if values[key] is not None else None
        before = Request(**values)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{request.out}: no run to resume ({error}).") from error
    fixed = (*_OWN, "precision", "config", "backbone")
    changed = [key for key in fixed if getattr(request, key) not in (None, getattr(before, key))]
    if changed or request.weights not in ({}, before.weights):
        raise UserError(
            f"--{(changed or ['weight'])[0].replace('_', '-')} cannot change with --resume; start "
            "another run with --backbone to go on from these weights."
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
        from cpm_tune.backbone.checkpoint import open_folder

        folder = open_folder(request.backbone)
        own = hashlib.sha256(folder.vocabulary.read_bytes()).hexdigest()
        if own != corpus.about["vocab_sha256"]:
            raise UserError(
                f"{folder.vocabulary}: not the vocabulary that {corpus.path} was prepared with; "
                f"run `pretrain prepare --vocab {folder.vocabulary}`."
            )
        return folder.config
    assert request.config is not None
    config = CPMAntConfig.from_file(request.config)
    if config.vocab_size != corpus.about["vocab_size"]:
        raise UserError(
            f"{request.config}: vocab_size is {config.vocab_size}, but the corpus has "
            f"{corpus.about['vocab_size']} entries."
        )
    return config


def _check(width: int, rows: int, config: CPMAntConfig) -> None:
    if config.prompt_types < 3 or config.segment_types < 3:
        raise UserError(
            f"the config has {config.prompt_types} prompt_types and {config.segment_types} "
            "segment_types; the objective needs 3 of each."
        )
    if width < config.prompt_length + 4 or rows < 1:
        raise UserError(
            f"--width {width} --rows {rows}: a row must hold more than its soft prompt "
            f"({config.prompt_length})."
        )


def _weights(request: Request, corpus: Corpus) -> dict[str, float]:
    weights = corpus.weights()
    for name, value in request.weights.items():
        if name not in weights:
            raise UserError(f"--weight {name}: no such source.{did_you_mean(name, weights)}")
        weights[name] = value
    weights = {name: value for name, value in weights.items() if value != 0}
    if not weights or min(weights.values()) < 0:
        raise UserError("--weight: at least one source needs a positive weight, none a negative.")
    return weights


def _about(model: Any, settings: Any, corpus: Corpus) -> str:
    n = sum(parameter.numel() for parameter in model.parameters())
    length = f"{settings.steps:,} steps" if settings.steps else f"{settings.seconds:,.0f} seconds"
    return (
        f"model      {n:,} parameters\n"
        f"corpus     {corpus.path}: {', '.join(settings.weights)}\n"
        f"training   {length}, {settings.rows} rows of {settings.width}, {settings.optimiser}, "
        f"peak lr {settings.lr:g}"
    )
