"""The training loop: packed batches, one optimiser, selection on the task's dev metric.

What a step does follows from its number, the seed and the state: a run that was stopped anywhere
continues as if it had not been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cpm_tune.backbone.base import Backbone, Batch, collated, micro_batches
from cpm_tune.backbone.example import Example
from cpm_tune.common.interrupt import Interrupts
from cpm_tune.data.batches import GlobalBatch, global_batches, total_steps
from cpm_tune.data.encode import Encoder
from cpm_tune.data.encoded import encoded_at, keep_encoded
from cpm_tune.data.store import RowDataset
from cpm_tune.delta.insert import Delta
from cpm_tune.engine.device import unless_out_of_memory
from cpm_tune.engine.engine import Engine
from cpm_tune.errors import NotFiniteError
from cpm_tune.schema.spec import Recipe
from cpm_tune.tuning.predict import batch_loss
from cpm_tune.tuning.resume import Checkpoints
from cpm_tune.tuning.score import Selection
from cpm_tune.tuning.scoring import loss_count
from cpm_tune.tuning.state import Evaluation, State, Step
from cpm_tune.tuning.stopping import StopRule

_LISTED = 64  # examples that are named when the loss of their batch is not finite


@dataclass(frozen=True)
class Training:
    """What is trained, on which rows, and how. `micro_tokens` bounds one forward pass."""

    model: Backbone
    delta: Delta
    rows: RowDataset
    encoder: Encoder
    engine: Engine
    recipe: Recipe
    seed: int
    rule: StopRule
    micro_tokens: int

    @property
    def total(self) -> int:
        """Optimiser steps, unless training stops early."""
        return total_steps(len(self.rows), self.recipe)


def train(
    training: Training,
    selection: Selection,
    checkpoints: Checkpoints,
    report: Callable[[Step | Evaluation], None],
    stop: Interrupts,
) -> State:
    """Train the delta and return the final state; the delta is left at its best values.

    Raises Interrupted when `stop` is requested, with the state saved, and UserError when the loss
    is not finite.
    """
    recipe, engine, delta, rule = training.recipe, training.engine, training.delta, training.rule
    parameters = list(delta.parameters.values())
    optimizer = engine.optimizer(parameters, (recipe.beta1, recipe.beta2), recipe.weight_decay)
    state, requested = checkpoints.restore(optimizer), 0.0
    stopped, made = rule.stops(state.scores), None
    batches = global_batches(len(training.rows), recipe, training.seed, after=state.step)
    training.model.train()
    with stop.deferred():
        while True:
            if state.evaluation_due(recipe.eval_every, training.total):
                checkpoints.save(state, optimizer)
                with stop.released():
                    dev = selection.score()
                evaluation = state.evaluated(dev)
                if state.curve[rule.best(state.scores)] is evaluation:
                    state.best = delta.state()
                    selection.keep_last()
                stopped = rule.stops(state.scores)
                report(evaluation)
                checkpoints.save(state, optimizer)
            if stopped or state.step == training.total:
                break
            if requested:
                checkpoints.save(state, optimizer)
                raise stop.interrupted(
                    f"the run is saved at step {state.step}; repeat the command to resume"
                )
            started, made = time.perf_counter(), made or _made(training, next(batches), state)
            batch = made.batch
            lr = recipe.learning_rate(batch.step, training.total)
            for group in optimizer.param_groups:
                group["lr"] = lr
            part, following = _backward(training, made, state, optimizer, batches)
            sums = engine.reduce_sums([part, float(stop.requested), float(checkpoints.due())])
            loss, requested, due = sums  # the clocks of processes may disagree
            grad_norm = engine.clip(optimizer, parameters, recipe.clip)
            finite = math.isfinite(loss) and math.isfinite(grad_norm)
            if not finite and not engine.has_loss_scaling:
                raise _not_finite(engine, made.examples, batch.step, loss, grad_norm)
            engine.step(optimizer)
            seconds = time.perf_counter() - started
            state.stepped(batch.step, len(batch.rows), loss if finite else None, seconds)
            if finite:
                report(Step(batch.step, batch.epoch, loss, lr, grad_norm))
            if due:
                checkpoints.save(state, optimizer)
            made = following
    delta.load_state(state.best)
    keep_encoded(training.encoder)
    return state


@dataclass(frozen=True)
class _Made:
    """This process's examples of a step, and the batches of its passes."""

    batch: GlobalBatch
    examples: list[Example]
    packed: list[Batch]


def _made(training: Training, batch: GlobalBatch, state: State) -> _Made:
    rows = training.engine.shard(batch.rows)
    examples = encoded_at(training.rows, rows, training.encoder, "train")
    tokens = state.micro_tokens or training.micro_tokens
    return _Made(batch, examples, _packed(training, examples, tokens))


def _backward(
    training: Training,
    made: _Made,
    state: State,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[GlobalBatch],
) -> tuple[float, _Made | None]:
    """Forward and backward passes of a step, in smaller ones if memory runs out; return this
    process's part of the loss, and what the next step computes, if there is one.

    That is made before the loss is read: a GPU computes meanwhile.
    """
    engine, encoder, packed = training.engine, training.encoder, made.packed
    engine.seed(training.seed, made.batch.step)  # dropout
    (count,) = engine.reduce_sums([sum(loss_count(b, encoder.rule) for b in packed)])
    while (losses := _passes(training, packed, count)) is None:
        tokens = state.micro_tokens or training.micro_tokens
        state.micro_tokens = tokens // 2
        optimizer.zero_grad(set_to_none=True)
        engine.seed(training.seed, made.batch.step)
        packed = _packed(training, made.examples, state.micro_tokens)
    last = made.batch.step == training.total
    following = None if last else _made(training, next(batches), state)
    return sum(losses.tolist()), following  # the only wait for the device


def _packed(training: Training, examples: Sequence[Example], tokens: int) -> list[Batch]:
    """The batches of a step's passes: sorted, so that few lengths occur in each, and the largest
    pass is the first."""
    layout, vocabulary = training.encoder.layout, training.model.config.shape.vocabulary
    examples = sorted(examples, key=layout.n_tokens, reverse=True)
    groups = micro_batches(examples, layout, tokens, vocabulary)
    return [collated(layout, group) for group in groups]


def _passes(training: Training, packed: Sequence[Batch], count: float) -> Tensor | None:
    """The passes' parts of the loss (passes,), on the device, their gradients added; None if memory
    ran out and smaller passes may be tried, with unusable gradients."""
    model, engine = training.model, training.engine

    def passes() -> Tensor:
        parts = list[Tensor]()
        with engine.join(model, backward=True):
            for micro in packed:
                with engine.autocast():
                    rule = training.encoder.rule
                    part = batch_loss(model, micro.to(engine.device), rule) / count
                engine.backward(part)
                parts.append(part.detach())
        return torch.stack(parts) if parts else torch.zeros(0)

    may_split = engine.splits_on_oom and any(len(micro.gold) > 1 for micro in packed)
    return unless_out_of_memory(passes, may_split)


def _not_finite(
    engine: Engine, examples: Sequence[Example], step: int, loss: float, grad_norm: float
) -> NotFiniteError:
    ids = engine.broadcast(engine.gather([str(example.id) for example in examples]))
    more = f" and {len(ids) - _LISTED} more" if len(ids) > _LISTED else ""
    fix = "lower train.lr or, in half precision, use --precision fp32"
    if step == 1 and not math.isfinite(loss):  # nothing was trained yet
        fix = "the backbone's weights are broken, or too large for this precision"
    return NotFiniteError(
        f"step {step}: the loss is {loss:.4g} and the gradient norm {grad_norm:.4g} (examples "
        f"{', '.join(ids[:_LISTED])}{more}); {fix}."
    )
