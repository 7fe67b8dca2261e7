"""The training loop: packed batches, one optimiser, selection on the task's dev metric."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cpm_tune.backbone.model import CPMAnt
from cpm_tune.data.batches import global_batches
from cpm_tune.data.encode import Encoder
from cpm_tune.data.pack import micro_batches, pack
from cpm_tune.data.store import Rows
from cpm_tune.delta.insert import Delta
from cpm_tune.engine import Engine
from cpm_tune.errors import UserError
from cpm_tune.predict import loss_count, loss_sum
from cpm_tune.schedule import learning_rate
from cpm_tune.spec import Recipe


@dataclass
class Evaluation:
    """One evaluation during training."""

    step: int
    loss: float
    dev: float


@dataclass
class State:
    """What training knows so far. `best` is the delta at the best dev score."""

    step: int = 0
    best_step: int = 0
    best_dev: float | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    waited: int = 0
    stopped_early: bool = False
    curve: list[Evaluation] = field(default_factory=list)
    n_samples: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Step:
    """What is reported after every optimiser step."""

    step: int
    epoch: int
    loss: float
    lr: float
    grad_norm: float


def train(
    model: CPMAnt,
    delta: Delta,
    rows: Rows,
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
) -> State:
    """Train the delta and return the final state; the delta is left at its best values.

    `evaluate` returns the dev metric; `improved` is called whenever
    the delta is better than ever (to save it). Raises UserError when the loss is not finite.
    """
    parameters = list(delta.parameters.values())
    optimizer = torch.optim.AdamW(
        parameters, lr=0.0, betas=(recipe.beta1, recipe.beta2), weight_decay=recipe.weight_decay
    )
    state, since, n_since = State(), 0.0, 0
    model.train()
    torch.manual_seed(seed)  # dropout
    for batch in global_batches(len(rows), recipe, seed):
        started = time.perf_counter()
        lr = learning_rate(recipe, batch.step, total)
        for group in optimizer.param_groups:
            group["lr"] = lr
        examples = [
            encoder.encode(row, train=True) for row in rows.at(tuple(engine.shard(batch.rows)))
        ]
        packed = [pack(group, encoder) for group in micro_batches(examples, micro_tokens)]
        count = engine.reduce_sum(sum(loss_count(b, encoder.by_option) for b in packed))
        loss = 0.0
        for micro in packed:
            with engine.autocast():
                part = loss_sum(model, micro.to(engine.device), encoder.by_option) / count
            loss += float(part.detach())
            engine.backward(part)
        loss = engine.reduce_sum(loss)
        grad_norm = engine.clip(parameters, recipe.clip)
        if not (torch.isfinite(torch.tensor([loss, grad_norm])).all()):
            named = ", ".join(str(example.id) for example in examples[:8])
            raise UserError(
                f"step {batch.step}: the loss is {loss} and the gradient norm {grad_norm} "
                f"(examples {named}…); lower train.lr or use --precision fp32."
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state.step = batch.step
        state.n_samples += len(batch.rows)
        state.seconds += time.perf_counter() - started
        since, n_since = since + loss, n_since + 1
        report(Step(batch.step, batch.epoch, loss, lr, grad_norm))

        if batch.step % recipe.eval_every == 0 or batch.step == total:
            dev = evaluate()
            state.curve.append(Evaluation(batch.step, since / n_since, dev))
            since, n_since = 0.0, 0
            report(state.curve[-1])
            better = state.best_dev is None or (
                dev > state.best_dev if higher_is_better else dev < state.best_dev
            )
            if better:
                state.best_dev, state.best_step, state.waited = dev, batch.step, 0
                state.best = delta.state()
                improved()
            else:
                state.waited += 1
                if recipe.patience and state.waited >= recipe.patience:
                    state.stopped_early = True
                    break
    delta.load_state(state.best)
    return state
