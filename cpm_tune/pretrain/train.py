"""The pre-training loop: readable from top to bottom, resumable from any checkpoint.

Everything random follows from (seed, step) and the data position from the step, so a resumed run
has the losses of an uninterrupted one. With a length in seconds the learning rate follows the
training time so far, which the checkpoint keeps.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cpm_tune.backbone.base import Backbone
from cpm_tune.backbone.pretraining import Objective, TrainingBatch
from cpm_tune.backbone.tokens import Tokenizer
from cpm_tune.common.folders import CHECKPOINT, LOG, complete, disk_trouble, partial_folder, remove
from cpm_tune.common.interrupt import Interrupts
from cpm_tune.common.progress import working
from cpm_tune.common.saved import FINGERPRINT, read_state, write_state
from cpm_tune.errors import UserError
from cpm_tune.pretrain.evaluate import HeldOut, generate, weighted_mean
from cpm_tune.pretrain.log import MAKE_ROOM, Log, Progress, RunningMeans
from cpm_tune.pretrain.losses import TargetLosses
from cpm_tune.pretrain.optimise import learning_rate, make_optimisers, set_rate
from cpm_tune.pretrain.order import RowOrder
from cpm_tune.pretrain.store import Corpus

BACKBONE = "backbone"  # the folder with the weights so far
SAMPLE_PREFIXES = ("《春日》李白\n", "却说曹操", "要打开文件，", "该命令用于", "Save As\n")


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run besides corpus and starting weights.

    Exactly one of `steps` and `seconds` is positive. `weights`: source -> share of the rows.
    """

    weights: Mapping[str, float]
    steps: int = 0
    seconds: float = 0.0
    rows: int = 16
    width: int = 256
    shortest: int = 32
    lr: float = 3e-3
    last_lr: float = 0.03
    warmup: int = 100
    optimiser: str = "muon"
    weight_decay: float = 0.05
    clip: float = 1.0
    seed: int = 1
    bf16: bool = True
    compiled: bool = True


@dataclass(frozen=True)
class Intervals:
    """How often what happens; nothing here changes a result. Minutes are wall time."""

    log_steps: int = 50
    checkpoint_minutes: float = 5.0
    heldout_minutes: float = 10.0
    heldout_rows: int = 16


class TrainingBatches:
    """Batches of the training split by step number."""

    def __init__(self, corpus: Corpus, settings: Settings, objective: Objective) -> None:
        self.settings, self.objective = settings, objective
        self.names = list(settings.weights)
        self.rows = []
        for name in self.names:
            split = corpus.split(name, "train")
            rows = objective.rows(split.tokens, split.offsets, settings.seed)
            if not rows.n_rows:
                raise UserError(
                    f"source '{name}': no piece of at least {settings.shortest} tokens. Give a "
                    "smaller --shortest."
                )
            self.rows.append(rows)
        self.order = RowOrder(
            [rows.n_rows for rows in self.rows],
            list(settings.weights.values()),
            settings.seed,
        )

    def batch(self, step: int) -> TrainingBatch:
        """The batch of a step (from 1): rows by the order, what is drawn by (seed, step)."""
        generator = np.random.default_rng([self.settings.seed, 4, step])
        items = []
        for number in range((step - 1) * self.settings.rows, step * self.settings.rows):
            source, row = self.order.at(number)
            item = self.objective.drawn(generator, self.rows[source].row(row))
            items.append((source, item))
        return self.objective.batch(items)


def train(
    model: Backbone,
    tokenizer: Tokenizer,
    corpus: Corpus,
    settings: Settings,
    out: Path,
    *,
    intervals: Intervals | None = None,
    resume: bool = False,
    begin: Callable[[], None] = lambda: None,
    report: Callable[[str], None] = lambda text: None,
) -> Progress:
    """Train `model` in place; write log.jsonl, checkpoint.pt and the folder backbone to `out`.

    `begin` is called when everything has been read and checked. Ctrl-C and SIGTERM save after the
    current step, then raise Interrupted. Raises UserError when the loss or a weight is not finite
    (naming the step, the sources of the batch and the last good checkpoint), when a checkpoint or
    the backbone cannot be written, and when a checkpoint does not belong to this run.
    """
    intervals = intervals or Intervals()
    kind = corpus.kind
    objective = kind.objective(
        model.config, tokenizer, width=settings.width, shortest=settings.shortest
    )
    fixed = {k: v for k, v in asdict(settings).items() if k not in ("steps", "seconds")}
    fingerprint = {
        "config": _sha256(kind.values(model.config)),
        "corpus": _sha256(corpus.about),  # it has the counts and hashes of all tokens
        "settings": _sha256(fixed),  # all but the length, which may change when resuming
    }
    data = TrainingBatches(corpus, settings, objective)
    heldout = HeldOut(corpus, data.names, tokenizer, objective)
    optimisers = make_optimisers(model, settings.optimiser, settings.weight_decay)
    progress, file, backbone = Progress(), out / CHECKPOINT, out / BACKBONE
    running = RunningMeans(objective.labels, data.names)
    if resume:
        check_replaceable(backbone, kind.files)
        state = _read_checkpoint(file, fingerprint)
        model.load_state_dict(state["model"])
        try:
            for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(saved)
        except ValueError as error:
            raise UserError(
                f"{file}: its optimiser has other groups of parameters, as those of an earlier "
                "version of cpm-tune. Finish it with that version, or start again in another --out."
            ) from error
        progress = Progress(**state["progress"])
        if state.get("running"):
            running.load_state(state["running"])
        if settings.steps and progress.step > settings.steps:
            raise UserError(f"--steps {settings.steps}: {out} is already at step {progress.step}.")
    begin()
    log = Log(out / LOG, keep_until=progress.step if resume else None, report=report)
    if log.last_event == "end" and _done(settings, progress):
        report(f"already finished at step {progress.step}; give a greater --steps or --seconds")
        return progress
    log.write(
        "resume" if resume else "start",
        progress,
        settings=asdict(settings),
        fingerprint=fingerprint,
    )
    losses = TargetLosses(model, objective.losses, bf16=settings.bf16, compiled=settings.compiled)

    def save() -> None:
        if not all(bool(p.isfinite().all()) for p in model.parameters()):
            raise UserError(_not_finite(progress.step, "a weight is not finite", batch, data, file))
        state = {
            "progress": asdict(progress),
            FINGERPRINT: fingerprint,
            "running": running.state(),
            "model": model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in optimisers],
        }
        write_state(file, state, progress.step, "--resume")
        export(model, corpus, backbone)

    def judge(event: str, rows: int | None) -> None:
        model.eval()
        if means := heldout.losses(model, batch=settings.rows, bf16=settings.bf16, rows=rows):
            log.write(event, progress, mean=weighted_mean(means, settings.weights), sources=means)
        for prefix in SAMPLE_PREFIXES:
            text = generate(model, tokenizer, objective, prefix, seed=progress.step)[0]
            log.write("sample", progress, prefix=prefix, text=text)
        model.train()

    model.train()
    saved_at = judged_at = time.monotonic()
    length, unit = (settings.steps, "step") if settings.steps else (int(settings.seconds), "second")
    with (
        Interrupts() as stop,
        stop.deferred(),
        working("training", length, unit, _done_of(settings, progress)) as work,
    ):
        while not (_done(settings, progress) or stop.requested):
            began = time.perf_counter()
            step = progress.step + 1
            lr = learning_rate(
                settings.lr, settings.last_lr, step, settings.warmup, _share(settings, progress)
            )
            batch = data.batch(step)
            torch.manual_seed(_drawn(settings.seed, step))  # for dropout
            each = losses(batch)
            loss = each.mean()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip))
            if not (math.isfinite(float(loss.detach())) and math.isfinite(norm)):
                fault = f"the loss is {float(loss.detach())} and the gradient norm {norm}"
                raise UserError(_not_finite(step, fault, batch, data, file))
            set_rate(optimisers, lr)
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            progress.step, progress.tokens = step, progress.tokens + batch.n_tokens
            took = time.perf_counter() - began
            progress.seconds += 0.0 if losses.fresh else took
            work.at(_done_of(settings, progress), f"step {step:,}, loss {float(loss.detach()):.4f}")
            running.add(each.detach(), batch, norm, 0.0 if losses.fresh else took)
            if step % intervals.log_steps == 0 or _done(settings, progress):
                log.write("train", progress, lr=lr, **running.flush())
            if time.monotonic() - judged_at >= 60 * intervals.heldout_minutes:
                judge("heldout", intervals.heldout_rows)
                judged_at = time.monotonic()
            if time.monotonic() - saved_at >= 60 * intervals.checkpoint_minutes:
                save()
                saved_at = time.monotonic()
        save()
    if stop.requested:
        raise stop.interrupted(f"step {progress.step} is saved, continue with --resume")
    judge("heldout-all", None)
    epochs = data.order.epochs(progress.step * settings.rows)
    log.write("end", progress, epochs=dict(zip(data.names, epochs, strict=True)))
    return progress


def export(model: Backbone, corpus: Corpus, path: Path) -> None:
    """Write the weights in fp16 as a backbone folder, in place of an older one.

    Raises UserError if it cannot be written, or if `path` contains anything that this function did
    not write. What is there then stays.
    """
    check_replaceable(path, corpus.kind.files)
    half = copy.deepcopy(model).to(torch.float16)
    part = partial_folder(path.parent, path.name)
    with disk_trouble(path, f"{MAKE_ROOM}: the checkpoint next to it is complete"):
        remove(part)
        part.mkdir()
        corpus.kind.write(half, corpus.vocabulary, part)
        complete(path.parent, path.name)


def check_replaceable(path: Path, names: Set[str]) -> None:
    """Raise UserError if there is something at `path` but files with these names, which `export`
    writes."""
    ours = path.is_dir() and {file.name for file in path.iterdir()} <= names
    if os.path.lexists(path) and (path.is_symlink() or not ours):
        raise UserError(
            f"{path} contains files that `pretrain run` did not write and would replace. Move it "
            "away, then continue with --resume."
        )


def _drawn(seed: int, step: int) -> int:
    """A number that follows from seed and step."""
    return int(np.random.default_rng([seed, 5, step]).integers(2**63))


def _read_checkpoint(file: Path, fingerprint: Mapping[str, str]) -> dict[str, Any]:
    otherwise = "start another run, with --backbone from the folder backbone next to it"
    try:
        return read_state(file, ("progress", "model", "optimisers"), fingerprint, otherwise)
    except FileNotFoundError as error:
        raise UserError(
            f"{file.parent}: no checkpoint to resume from; start the run again without --resume."
        ) from error


def _sha256(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _share(settings: Settings, progress: Progress) -> float:
    """How much of the run is done, 0 to 1."""
    if settings.steps:
        return progress.step / settings.steps
    return progress.seconds / settings.seconds


def _done_of(settings: Settings, progress: Progress) -> int:
    """How many steps, or seconds, of the run are done."""
    return progress.step if settings.steps else int(progress.seconds)


def _done(settings: Settings, progress: Progress) -> bool:
    return _share(settings, progress) >= 1


def _not_finite(
    step: int, fault: str, batch: TrainingBatch, data: TrainingBatches, file: Path
) -> str:
    names = ", ".join(data.names[i] for i in np.unique(batch.source))
    kept = f"the last good checkpoint is {file}" if file.is_file() else "there is no checkpoint yet"
    advice = "Lower --lr, or use --precision fp32." if data.settings.bf16 else "Lower --lr."
    return f"step {step}: {fault} (sources of the batch: {names}); {kept}. {advice}"
