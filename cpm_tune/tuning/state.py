"""What training knows so far, and what it reports: plain values that a checkpoint keeps."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Step:
    """What is reported after every optimiser step; `lr` is the one it was made with."""

    step: int
    epoch: int
    loss: float
    lr: float
    grad_norm: float


@dataclass(frozen=True)
class Evaluation:
    """One evaluation during training: the mean training loss since the last one, the dev metric."""

    step: int
    loss: float
    dev: float


@dataclass
class State:
    """Where training is. `best` is the delta at the best evaluation of `curve`; `loss_since` sums
    the losses of the `n_since` steps since the last one; `n_skipped` steps overflowed in fp16;
    `micro_tokens`, unless 0, is what passes were reduced to when memory ran out.
    """

    step: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    curve: list[Evaluation] = field(default_factory=list)
    loss_since: float = 0.0
    n_since: int = 0
    n_samples: int = 0
    n_skipped: int = 0
    micro_tokens: int = 0
    seconds: float = 0.0

    @property
    def scores(self) -> list[float]:
        """The dev metric of every evaluation so far."""
        return [evaluation.dev for evaluation in self.curve]

    def evaluation_due(self, every: int, total: int) -> bool:
        """Whether dev is to be evaluated before the next step."""
        evaluated = self.curve[-1].step if self.curve else 0
        return self.step != evaluated and (self.step % every == 0 or self.step == total)

    def evaluated(self, dev: float) -> Evaluation:
        """Take in an evaluation at this step and return it."""
        self.curve.append(Evaluation(self.step, self.loss_since / max(1, self.n_since), dev))
        self.loss_since, self.n_since = 0.0, 0
        return self.curve[-1]

    def stepped(self, step: int, n_samples: int, loss: float | None, seconds: float) -> None:
        """Take in an optimiser step; `loss` is None if it overflowed and changed nothing."""
        self.step = step
        self.n_samples += n_samples
        self.seconds += seconds
        if loss is None:
            self.n_skipped += 1
        else:
            self.loss_since, self.n_since = self.loss_since + loss, self.n_since + 1
