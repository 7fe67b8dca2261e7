"""torch's AdamW without torch's compiler, which every optimiser of torch imports: 0.5 s, 25 MiB."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


class AdamW(torch.optim.AdamW):
    """The same steps and states. Its methods are torch's without their decorators, which exclude
    them from compilation and only then need the compiler; nothing here compiles an optimiser."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        return inspect.unwrap(torch.optim.AdamW.step)(self, closure)
