"""BMTrain's Adam whose states are in host memory, with the weight decay of AdamW.

In fp32 BMTrain adds the decay to the gradient (L2), in half precision to the parameter (AdamW):
here it is AdamW's throughout, as in the torch engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from bmtrain.optim import AdamOffloadOptimizer
from torch import nn

_KEPT = ("step", "exp_avg", "exp_avg_sq")  # not its copy of the parameter, which is the delta's


class AdamWOffload(AdamOffloadOptimizer):  # type: ignore[misc]
    """Its saved state can be loaded by torch's AdamW, and vice versa."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], betas: tuple[float, float], weight_decay: float
    ) -> None:
        super().__init__(parameters, lr=0.0, betas=betas, weight_decay=0)
        self.decay = weight_decay

    @torch.no_grad()
    def step(self, closure: None = None, scale: float = 1) -> None:
        for group in self.param_groups:
            for parameter in (p for p in group["params"] if p.grad is not None):
                values = self.state.get(parameter, {}).get("_param_fp32", parameter)
                values.mul_(1 - group["lr"] * self.decay)
        super().step(scale=scale)

    def state_dict(self, gather: bool = False) -> dict[str, Any]:
        saved = super().state_dict(gather)
        state = {k: {name: v[name] for name in _KEPT} for k, v in saved["state"].items()}
        groups = [{**group, "weight_decay": self.decay} for group in saved["param_groups"]]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = {
            k: {**{name: v[name] for name in _KEPT}, "step": int(v["step"])}
            for k, v in state_dict["state"].items()
        }
        groups = [{**group, "weight_decay": 0} for group in state_dict["param_groups"]]
        super().load_state_dict({"state": state, "param_groups": groups})
