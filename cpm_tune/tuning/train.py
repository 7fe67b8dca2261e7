"""The training loop: packed batches, one optimiser, selection on the task's dev metric.

What a step does follows from its number, the seed and the state: a run that was stopped anywhere
goes on as if it had not been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from cpm_tune.backbone.model import CPMAnt
from cpm_tune.common.interrupt import Interrupts
from cpm_tune.data.batches import global_batches
from cpm_tune.data.encode import Encoder
from cpm_tune.data.encoded import encoded_at, keep_encoded
from cpm_tune.data.pack import Batch, micro_batches, pack
from cpm_tune.data.store import RowDataset
from cpm_tune.delta.insert import Delta
from cpm_tune.engine import Engine
from cpm_tune.engine.device import is_out_of_memory
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Recipe
from cpm_tune.tuning.lr_schedule import learning_rate
from cpm_tune.tuning.predict import loss_count, loss_sum

_NAMED = 64  # examples of a batch whose loss is not finite


@dataclass
class Evaluation:
    """One evaluation during training."""

    step: int
    loss: float
    dev: float


@dataclass
class State:
    """What training knows so far. `best` is the delta at the best dev score; `loss_since` sums the
    losses of the `n_since` steps since the last evaluation; `n_skipped` steps overflowed in fp16;
    `micro_tokens`, if it is not 0, fitted into memory where more did not.
    """

    step: int = 0
    best_step: int = 0
    best_dev: float | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    waited: int = 0
    stopped_early: bool = False
    curve: list[Evaluation] = field(default_factory=list)
    loss_since: float = 0.0
    n_since: int = 0
    n_samples: int = 0
    n_skipped: int = 0
    micro_tokens: int = 0
    seconds: float = 0.0

    def evaluation_due(self, every: int, total: int) -> bool:
        """Whether dev is to be evaluated before the next step."""
        judged = self.curve[-1].step if self.curve else 0
        return self.step != judged and (self.step % every == 0 or self.step == total)

    def judge(self, dev: float, higher_is_better: bool, patience: int) -> bool:
        """Take in an evaluation; return whether it is the best one so far."""
        self.curve.append(Evaluation(self.step, self.loss_since / max(1, self.n_since), dev))
        self.loss_since, self.n_since = 0.0, 0
        sign = 1 if higher_is_better else -1
        if self.best_dev is None or sign * dev > sign * self.best_dev:
            self.best_dev, self.best_step, self.waited = dev, self.step, 0
            return True
        self.waited += 1
        self.stopped_early = 0 < patience <= self.waited
        return False


@dataclass(frozen=True)
class Step:
    """What is reported after every optimiser step."""

    step: int
    epoch: int
    loss: float
    lr: float
    grad_norm: float


class Keeper(Protocol):
    """Keeps what is needed to go on."""

    def restore(self, optimizer: torch.optim.Optimizer) -> State:
        """The state to begin with; delta and optimiser are set to it."""

    def save(self, state: State, optimizer: torch.optim.Optimizer) -> None:
        """Keep this state in place of the one before."""

    def due(self) -> bool:
        """Whether it is time to save."""


def train(
    model: CPMAnt,
    delta: Delta,
    rows: RowDataset,
    encoder: Encoder,
    engine: Engine,
    recipe: Recipe,
    seed: int,
    *,
    total: int,
    micro_tokens: int,
    evaluate: Callable[[], float],
    higher_is_better: bool,
    report: Callable[[Step | Evaluation], None],
    improved: Callable[[], None],
    keep: Keeper,
    stop: Interrupts,
) -> State:
    """Train the delta and return the final state; the delta is left at its best values.

    `evaluate` returns the dev metric; `improved` is called whenever the delta is better than ever.
    Raises Interrupted when `stop` is asked for, with the state kept, and UserError when the loss is
    not finite.
    """
    parameters = list(delta.parameters.values())
    optimizer = engine.optimizer(parameters, (recipe.beta1, recipe.beta2), recipe.weight_decay)
    state, asked = keep.restore(optimizer), False
    batches = global_batches(len(rows), recipe, seed, after=state.step)
    model.train()
    with stop.deferred():
        while True:
            if state.evaluation_due(recipe.eval_every, total):
                keep.save(state, optimizer)
                with stop.released():
                    dev = evaluate()
                if state.judge(dev, higher_is_better, recipe.patience):
                    state.best = delta.state()
                    improved()
                report(state.curve[-1])
                keep.save(state, optimizer)
            if state.step == total or state.stopped_early:
                break
            if asked:
                keep.save(state, optimizer)
                raise stop.interrupted(
                    f"the run is kept at step {state.step} and goes on next time"
                )
            started, batch = time.perf_counter(), next(batches)
            engine.seed(seed, batch.step)  # dropout
            lr = learning_rate(recipe, batch.step, total)
            for group in optimizer.param_groups:
                group["lr"] = lr
            examples = encoded_at(rows, engine.shard(batch.rows), encoder, "train")
            tokens = state.micro_tokens or micro_tokens
            packed = [pack(group, encoder) for group in micro_batches(examples, tokens)]
            (count,) = engine.reduce_sums(
                [sum(loss_count(b, encoder.scores_in_prompt) for b in packed)]
            )
            while (loss := _passes(model, packed, encoder, engine, count)) is None:
                tokens = state.micro_tokens = tokens // 2
                optimizer.zero_grad(set_to_none=True)
                engine.seed(seed, batch.step)
                packed = [pack(group, encoder) for group in micro_batches(examples, tokens)]
            sums = engine.reduce_sums([loss, float(stop.requested), float(keep.due())])
            loss, wanted, due = sums  # the clocks of processes may disagree
            grad_norm = engine.clip(optimizer, parameters, recipe.clip)
            finite = math.isfinite(loss) and math.isfinite(grad_norm)
            if not finite and not engine.has_loss_scaling:
                ids = [str(example.id) for example in examples]
                named = engine.broadcast(engine.gather(ids))
                more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
                mend = "lower train.lr or, in half precision, use --precision fp32"
                if batch.step == 1 and not math.isfinite(loss):  # nothing was trained yet
                    mend = "the backbone's weights are broken, or too large for this precision"
                raise UserError(
                    f"step {batch.step}: the loss is {loss:.4g} and the gradient norm "
                    f"{grad_norm:.4g} (examples {', '.join(named[:_NAMED])}{more}); {mend}."
                )
            engine.step(optimizer)
            state.step, asked = batch.step, wanted > 0
            state.n_samples += len(batch.rows)
            state.seconds += time.perf_counter() - started
            if finite:
                state.loss_since, state.n_since = state.loss_since + loss, state.n_since + 1
                report(Step(batch.step, batch.epoch, loss, lr, grad_norm))
            else:
                state.n_skipped += 1
            if due:
                keep.save(state, optimizer)
    delta.load_state(state.best)
    keep_encoded(encoder)
    return state


def _passes(
    model: CPMAnt, packed: Sequence[Batch], encoder: Encoder, engine: Engine, count: float
) -> float | None:
    """Forward and backward passes of a step; return this process's part of the loss, or None where
    memory gave out and smaller passes may be tried: gradients are then anything."""
    loss = 0.0
    with engine.join(model, backward=True):
        for micro in packed:
            try:
                with engine.autocast():
                    part = (
                        loss_sum(model, micro.to(engine.device), encoder.scores_in_prompt) / count
                    )
                loss += float(part.detach())
                engine.backward(part)
            except (RuntimeError, MemoryError) as error:
                whole = all(len(micro.gold) == 1 for micro in packed)
                if whole or not engine.splits_on_oom or not is_out_of_memory(error):
                    raise
                return None
    return loss
