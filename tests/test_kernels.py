"""How many kernels a training step launches, and how often the host waits for the device.

Counted by dispatch. What a GPU would run is counted on the meta device, whose tensors have no
values: reading one is an error. There torch decomposes two functions that are one kernel on CUDA
(its backward pass four and one); they are replaced by stand-ins that count as such.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cpm_tune.backbone.ant.collate import AntBatch
from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.layout import AntLayout
from cpm_tune.backbone.ant.packing import FEW
from cpm_tune.backbone.base import _tensors_in
from cpm_tune.backbone.example import Answer, Example
from cpm_tune.backbone.fused import rms_norm
from cpm_tune.backbone.opening import random_backbone
from cpm_tune.delta.config import LoraConfig
from cpm_tune.delta.insert import insert
from cpm_tune.engine.pytorch import TorchEngine
from cpm_tune.tuning.predict import batch_loss

pytestmark = pytest.mark.usefixtures("one_thread")
LAYERS = 6
SHAPE = CPMAntConfig(
    vocab_size=500,
    dim_model=64,
    num_layers=LAYERS,
    dim_ff=128,
    num_heads=2,
    dim_head=32,
    position_bias_num_buckets=32,
)
LENGTHS = {"lcqmc": (32, 25, 0.28, 12, 90), "long": (8, 160, 0.75, 50, 1000)}
READS = ("_local_scalar_dense", "nonzero", "unique", "is_nonzero", "equal.default")
FREE = (
    "_unsafe_view",
    "alias",
    "as_strided",
    "detach",
    "expand",
    "permute",
    "slice",
    "split",
    "squeeze",
    "t.",
)
FREE += (
    "empty.",
    "empty_like",
    "new_empty.",
    "transpose",
    "unsqueeze",
    "view",
    "select.",
    "lift_fresh",
    "_record_function",
)


class Count(TorchDispatchMode):
    """Kernels (operators that are no views) and host reads within."""

    def __init__(self) -> None:
        super().__init__()
        self.each = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.each[str(func).partition(".")[2] or str(func)] += 1
        return func(*args, **(kwargs or {}))

    @property
    def kernels(self) -> int:
        return sum(n for name, n in self.each.items() if not name.startswith(FREE))

    def listed(self) -> str:
        return ", ".join(f"{n} {name}" for name, n in self.each.most_common())

    @property
    def reads(self) -> int:
        return sum(n for name, n in self.each.items() if name.startswith(READS))


def batch(kind: str) -> AntBatch:
    n, middle, spread, least, most = LENGTHS[kind]
    random = np.random.default_rng(0)
    lengths = random.lognormal(math.log(middle), spread, n).clip(least, most).astype(int)
    start, head = SHAPE.vocab_size, SHAPE.prompt_length
    layout = AntLayout(tuple(range(start, start + head)), head, 2, start + 4 * head)
    examples = [
        Example(
            "",
            ((*layout.start, *random.integers(1, 500, k).tolist()),),
            (Answer(0, (7,)),),
            0,
            False,
        )
        for k in lengths
    ]
    made: AntBatch = layout.collate(examples)
    return made


class _Attention(torch.autograd.Function):
    """One kernel forward, four backward."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, value)
        return query.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        grad.clone()
        return tuple(x.clone() for x in ctx.saved_tensors)


class _Norm(torch.autograd.Function):
    """One kernel each way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.clone()


@pytest.fixture
def one_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def attention(query: Tensor, key: Tensor, value: Tensor, *o: Any, **named: Any) -> Tensor:
        return _Attention.apply(query, key, value)  # type: ignore[no-untyped-call,no-any-return]

    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    monkeypatch.setattr(F, "rms_norm", lambda x, *others: _Norm.apply(x))


def test_a_batch_that_is_copied_at_once_is_the_same() -> None:
    packed = batch("lcqmc").packed(FEW)
    copied = packed.copied(torch.device("cpu"))
    parts, again = ([*_tensors_in(each)] for each in (packed, copied))
    assert len(parts) == len(again) > 12
    for part, other in zip(parts, again, strict=True):
        assert part.dtype == other.dtype
        assert torch.equal(part, other)
        assert part.data_ptr() != other.data_ptr()
    assert copied.lengths == packed.lengths


def test_matrices_cast_together_give_the_bits_of_those_cast_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given, gradients = batch("lcqmc"), []
    for together in (True, False):
        model = random_backbone(SHAPE, 1, torch.bfloat16).train()
        delta = insert(model, LoraConfig(lora_r=8), "", seed=1)
        with torch.no_grad():
            for parameter in delta.parameters.values():
                parameter.add_(0.01)
        if not together:
            monkeypatch.setattr("cpm_tune.delta.placing.Matrices.of", alone)
        with torch.autocast("cpu", torch.bfloat16):
            batch_loss(model, given, "generation").backward()
        gradients.append([p.grad for p in delta.parameters.values()])
    for first, second in zip(*gradients, strict=True):
        assert torch.equal(first, second)


def alone(matrices: Any, layer: Any) -> tuple[Tensor, Tensor]:
    return layer.lora_A, layer.lora_B


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torchs_norm_which_gpus_take_is_ours(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(7, 64, generator=generator).to(dtype).requires_grad_()
    weight, grad = (torch.randn(*n, generator=generator).to(dtype) for n in ((64,), (7, 64)))
    ours, theirs = rms_norm(x, weight, 1e-6), F.rms_norm(x, (64,), weight, 1e-6)
    close = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(ours, theirs, **close)
    of = [torch.autograd.grad(y, x, grad)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*of, **close)


@pytest.mark.parametrize("kind", LENGTHS)
def test_on_a_gpu_a_step_reads_nothing_and_has_few_kernels(kind: str, one_kernel: None) -> None:
    model = SHAPE.skeleton().to(torch.bfloat16).train()
    with torch.device("meta"):
        insert(model, LoraConfig(lora_r=8), "", seed=1)
    moved = batch(kind).to(torch.device("meta"))
    with Count() as count:
        batch_loss(model, moved, "generation").backward()
    assert count.reads == 0
    assert count.kernels / LAYERS <= 70, count.listed()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", LENGTHS)
def test_on_a_cpu_too(kind: str, dtype: torch.dtype) -> None:
    model = random_backbone(SHAPE, 1, dtype).train()
    delta = insert(model, LoraConfig(lora_r=8), "", seed=1)
    engine = TorchEngine(torch.device("cpu"), "fp32" if dtype == torch.float32 else "bf16")
    parameters = list(delta.parameters.values())
    optimizer = engine.optimizer(parameters, (0.9, 0.999), 0.01)

    def step() -> None:
        with engine.autocast():
            loss = batch_loss(model, packed.to(engine.device), "generation")
        engine.backward(loss)
        engine.clip(optimizer, parameters, 1.0)
        engine.step(optimizer)
        loss.item()

    packed = batch(kind)
    step()
    with Count() as count:
        step()
    assert count.reads <= 3, count.each
    assert count.kernels / LAYERS <= 180, count.listed()
