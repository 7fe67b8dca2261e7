"""The optimiser of the torch engine is torch's, bit for bit, and does not import its compiler."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import torch

from cpm_tune.engine.adamw import AdamW


def five_steps(kind: Any) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """Values and state after five steps, the last through a loss scale, with a reload between."""
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(5, 4)) for _ in range(3)]
    optimizer = kind(parameters, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    scaler = torch.amp.GradScaler("cpu")
    for step in range(5):
        scaler.scale(sum((p**2).sum() for p in parameters)).backward()
        scaler.unscale_(optimizer)
        if step < 4:
            optimizer.step()
        else:
            scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if step == 2:
            optimizer.load_state_dict(optimizer.state_dict())
    return parameters, optimizer.state_dict()


def test_steps_and_states_are_torchs() -> None:
    (ours, state), (theirs, expected) = five_steps(AdamW), five_steps(torch.optim.AdamW)
    assert all(map(torch.equal, ours, theirs))
    assert state["param_groups"] == expected["param_groups"]
    assert state["state"].keys() == expected["state"].keys()
    for number, values in state["state"].items():
        assert values.keys() == {"step", "exp_avg", "exp_avg_sq"}
        for name, value in values.items():
            assert torch.equal(value, expected["state"][number][name])


def test_a_backbone_and_an_engine_that_steps_need_neither_the_compiler_nor_fsdp() -> None:
    code = """
import sys, torch
from cpm_tune.engine.engine import make_engine
from cpm_tune.schema.spec import Execution
engine = make_engine(Execution(device="cpu"), "fp32")
value = torch.nn.Parameter(torch.ones(2))
optimizer = engine.optimizer([value], (0.9, 0.999), 0.0)
engine.backward((value**2).sum())
engine.clip(optimizer, [value], 1.0)
engine.step(optimizer)
optimizer.load_state_dict(optimizer.state_dict())
from cpm_tune.backbone.bundled import resolve
from cpm_tune.backbone.families import open_folder
for name in ("cpm-ant-tiny", "cpm-2-tiny"):  # transformers, which cpm-1-tiny needs, imports it
    open_folder(resolve(name)).open(torch.float32)
late = ("torch._dynamo", "torch.distributed.fsdp", "sympy")
assert not (found := [name for name in late if name in sys.modules]), found
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
