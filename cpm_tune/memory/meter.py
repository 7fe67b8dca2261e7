"""Measures the memory of a training step without computing it: fake tensors, real operators.

Every storage that an operator allocates counts until it is freed, as in the allocator. Memory that
libraries take inside an operator, and fragmentation, are not seen. torch's own tracker
(`torch.distributed._tools.mem_tracker`) is as private and does not give a peak without gradients.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Size, Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cpm_tune.backbone.base import Backbone
from cpm_tune.delta.config import FullConfig
from cpm_tune.delta.insert import insert
from cpm_tune.delta.layers import SoftPromptLayer
from cpm_tune.engine.device import DTYPES
from cpm_tune.engine.pytorch import TorchEngine
from cpm_tune.planning.skeleton import Skeleton
from cpm_tune.task.scoring import ScoringName
from cpm_tune.tuning.predict import batch_loss


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the storages that are alive (`now`), and their peaks since `reset`, with and without
    gradients."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = self.gradients = self.peak_without_gradients = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.count(tensor)
        return made

    def count(self, tensor: Tensor) -> None:
        """Count a tensor's storage, unless it is counted."""
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        self.peak_without_gradients = max(self.peak_without_gradients, self.now - self.gradients)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.now -= size

    def reset(self) -> int:
        """Start new peaks; return the bytes that are alive."""
        self.peak = self.peak_without_gradients = self.now
        return self.now

    def is_gradient(self, parameter: Tensor) -> None:
        """Call when a parameter's gradient is complete."""
        assert parameter.grad is not None
        self.gradients += parameter.grad.untyped_storage().nbytes()


@dataclass(frozen=True)
class StepMemory:
    """Bytes in addition to weights, delta and optimiser states: what the forward pass keeps for the
    backward pass, and the peaks of a whole step, with and without gradients."""

    saved: int
    peak: int
    peak_without_gradients: int


def measure_step(
    skeleton: Skeleton,
    sequences: int,
    length: int,
    answer_tokens: int,
    precision: str,
    checkpointing: bool = False,
    training: bool = True,
) -> StepMemory:
    """A step of training (whose optimiser has its states already), or of evaluation, in one pass.

    `sequences` of `length` tokens are packed as by `collate`. `answer_tokens` of each are
    predicted over the vocabulary; with 0 the loss is that of an option's word. If the layers of
    each of a backbone's stacks are alike, and the stacks equally deep, two shallow backbones are
    measured and extrapolated to its depth.
    """
    config, stacks = skeleton.config, _stacks(skeleton)

    def measured(depth: int | None = None) -> StepMemory:
        layers = None if depth is None else depth * len(stacks)
        model = config.skeleton(layers).to(DTYPES[precision])
        with torch.device("meta"):
            trained = list(insert(model, skeleton.delta, "", 0).parameters)
        batch = sequences, length, answer_tokens
        return _measured(model, trained if training else [], batch, precision, checkpointing)

    # In too shallow backbones the peak is elsewhere: with checkpointing it must exceed what is not
    # in the layers; with all trained, gradients grow while activations are freed.
    few = 10 if isinstance(skeleton.delta, FullConfig) else 8 if checkpointing else 3
    depth = len(stacks[0]) if stacks else 0
    if len({*map(len, stacks)}) > 1 or depth <= few + 2 or not _alike(skeleton):
        return measured()
    small, larger = measured(few), measured(few + 1)
    more = depth - few
    return StepMemory(
        small.saved + more * (larger.saved - small.saved),
        small.peak + more * (larger.peak - small.peak),
        small.peak_without_gradients
        + more * (larger.peak_without_gradients - small.peak_without_gradients),
    )


def _stacks(skeleton: Skeleton) -> list[list[str]]:
    """The names of the layers of each stack."""
    by_stack: dict[str, list[str]] = {}
    for layer in skeleton.layers:
        by_stack.setdefault(layer.rpartition(".")[0], []).append(layer)
    return list(by_stack.values())


def _alike(skeleton: Skeleton) -> bool:
    """Whether all layers of a stack have the same parameters, and the same of them trained."""
    layers: dict[str, set[tuple[str, Size, bool]]] = {layer: set() for layer in skeleton.layers}
    for name, shape in {**skeleton.backbone, **skeleton.trained}.items():
        if (layer := skeleton.layer_of(name)) is not None:
            layers[layer].add((name.removeprefix(layer), shape, name in skeleton.trained))
    return all(layers[layer] == layers[stack[0]] for stack in _stacks(skeleton) for layer in stack)


def _measured(
    model: Backbone,
    names: Sequence[str],
    batch: tuple[int, int, int],
    precision: str,
    checkpointing: bool,
) -> StepMemory:
    engine = TorchEngine(torch.device("cpu"), precision, checkpointing=checkpointing)
    with FakeTensorMode(allow_non_fake_inputs=True), Meter() as meter:
        model.to_empty(device="cpu")  # fake tensors
        parameters = dict(model.named_parameters())
        trained = [parameters[name] for name in names]
        sequences, length, answer_tokens = batch
        grid = torch.zeros(sequences, length, dtype=torch.int64)
        packed = model.dummy(grid, answer_tokens or 1)
        engine._recompute_layers(model.train(bool(trained)))
        for module in model.modules():
            if isinstance(module, SoftPromptLayer):
                module.eval()  # in training it looks at values
        optimizer = torch.optim.AdamW(trained or [nn.Parameter(torch.zeros(1))])
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for parameter in trained:
            parameter.register_post_accumulate_grad_hook(meter.is_gradient)  # type: ignore[no-untyped-call]
        start = meter.reset()
        with torch.set_grad_enabled(bool(trained)), engine.autocast():
            rule: ScoringName = "generation" if batch[2] else "yes-logit"
            loss = batch_loss(model, packed, rule) / batch[0]
        saved = meter.now - start
        if trained:
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, 1.0, foreach=False)
            optimizer.step()
        return StepMemory(saved, meter.peak - start, meter.peak_without_gradients - start)
