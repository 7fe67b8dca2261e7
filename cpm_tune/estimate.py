"""How much memory tuning takes in each process, before anything is run: no weights, no data.

Weights, gradients and optimiser states are counted, activations measured on fake tensors
(`cpm_tune.meter`). Python, its libraries and CUDA's context come on top, and what an allocator
cannot use of what it has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from cpm_tune.backbone.config import CPMAntConfig
from cpm_tune.backbone.model import CPMAnt
from cpm_tune.delta.config import DeltaConfig, FullConfig, NoneConfig
from cpm_tune.delta.insert import insert
from cpm_tune.meter import DTYPES, measure_step
from cpm_tune.plan import Plan
from cpm_tune.spec import Execution
from cpm_tune.task import Options

_FP32 = 4
_DOCUMENTS = 8  # of an example whose documents are ranked
# Layers that a process has whole at one time: with FSDP2 the one in use, and of the next what is
# received and what is copied out of it; with BMTrain's ZeRO-3 one.
_GATHERED = {"torch": 3, "bmtrain": 1}


@dataclass(frozen=True)
class Work:
    """What is to be tuned, and how. `batch_size` counts examples over all `nproc` processes.

    An example has `sequences` of `length` tokens (one for each option where options are scored by a
    word after them). `answer_tokens`: how many tokens of each example are predicted over the vocabulary; 0 where
    options are scored so. `gpu`: whether the host has memory beside the device's.
    """

    config: CPMAntConfig
    delta: DeltaConfig
    batch_size: int
    length: int
    sequences: int = 1
    answer_tokens: int = 0
    precision: str = "fp32"
    quantize: str | None = None
    nproc: int = 1
    execution: Execution = Execution()
    gpu: bool = False

    @property
    def bmtrain(self) -> bool:
        """Whether the engine is BMTrain's."""
        return self.execution.engine == "bmtrain"

    @property
    def divided(self) -> bool:
        """Whether a process holds a part of the layers only."""
        return self.bmtrain or self.execution.shard or self.execution.offload

    @property
    def checkpointing(self) -> bool:
        """Whether activations are computed twice; BMTrain's ZeRO-3 always does."""
        return self.execution.checkpointing or (self.bmtrain and self.execution.zero == 3)

    @property
    def examples(self) -> int:
        """Examples of one forward pass of one process."""
        own = math.ceil(self.batch_size / self.nproc)
        return max(1, min(own, self.execution.micro_tokens // (self.length * self.sequences)))


@dataclass(frozen=True)
class Memory:
    """Bytes of one process. `backbone` and `trained` are numbers of values, in all processes.

    On the device: `weights`, what is held of the frozen backbone; `gathered`, layers of which it
    holds a part, while they are used; `delta`, `gradients` and `optimizer`, of what is trained;
    `activations`, what the forward pass leaves for the backward pass. `peak` is the most of all
    that there is at one time, on a CPU with `copies`: no sum, since not all is there together.
    `copies`: in host memory, the delta at its best and other values that are kept aside.
    `host`: all that is in host memory beside a GPU.
    """

    backbone: int
    trained: int
    weights: int
    gathered: int
    delta: int
    gradients: int
    optimizer: int
    activations: int
    copies: int
    peak: int
    host: int


def estimate(work: Work) -> Memory:
    """The memory of every process; raises UserError where the delta does not fit the backbone."""
    layers, rest, deepest, backbone, trained_in_layers, trained = _sizes(work)
    whole = isinstance(work.delta, FullConfig)
    n = work.nproc if work.divided else 1
    values = trained  # what this process has of what is trained
    if whole and work.bmtrain:
        values = math.ceil(trained_in_layers / n) + trained - trained_in_layers
    delta = _FP32 * values
    states, gradients = 2 * delta, delta

    held, gathered, offloaded = math.ceil(layers / n), 0, 0
    if work.divided:
        gathered = min(layers, _GATHERED["bmtrain" if work.bmtrain else "torch"] * deepest)
        if work.bmtrain and work.execution.zero == 2:
            gathered = layers  # kept from the forward to the backward pass
        if work.execution.offload and work.bmtrain:
            states, offloaded = 0, states
        elif work.execution.offload:
            offloaded = held
            held = 0 if work.gpu else held
    weights = 0 if whole else held + rest

    step = measure_step(
        work.config,
        work.delta,
        sequences=work.examples * work.sequences,
        length=work.length,
        answer_tokens=work.answer_tokens,
        precision=work.precision,
        checkpointing=work.checkpointing,
    )
    beside = step.peak if values == trained else step.peak_beside + gradients
    # The delta at its best, and the one before while it is replaced. Full fine-tuning keeps what
    # the backbone was as well.
    copies = _FP32 * trained * (2 if trained else 0) + (held + rest if whole else 0)
    peak = weights + gathered + delta + states + beside
    loading = weights + delta + 2 * _largest(work)
    if not work.gpu:
        peak = max(peak + copies, loading)
    host = copies + offloaded
    if not work.divided:
        host = max(host, layers + rest)  # read there, then moved
    return Memory(
        backbone=backbone,
        trained=trained,
        weights=weights,
        gathered=gathered,
        delta=delta,
        gradients=gradients,
        optimizer=states,
        activations=step.saved,
        copies=copies,
        peak=peak,
        host=host if work.gpu else 0,
    )


def work_of(plan: Plan, nproc: int = 1, gpu: bool = False) -> Work:
    """A plan's work if every sequence is as long as it may be."""
    spec, answer = plan.spec, plan.task.answer
    sequences, answer_tokens = 1, 2
    if spec.decoding is not None:
        answer_tokens = spec.decoding.max_new_tokens
    elif plan.template.by_option:
        most = answer.most if isinstance(answer, Options) else _DOCUMENTS
        sequences, answer_tokens = len(plan.template.options) or most, 0
    return Work(
        config=plan.folder.config,
        delta=plan.delta,
        batch_size=spec.recipe.batch_size if spec.recipe else 32,
        length=spec.encoding.max_length,
        sequences=sequences,
        answer_tokens=answer_tokens,
        precision=spec.precision,
        quantize=spec.backbone.quantize,
        nproc=nproc,
        execution=plan.execution,
        gpu=gpu,
    )


def _largest(work: Work) -> int:
    """Bytes of the largest weight: what reading and checking it takes beside it."""
    size = DTYPES[work.precision].itemsize
    return size * work.config.vocab_size * work.config.dim_model


def _sizes(work: Work) -> tuple[int, int, int, int, int, int]:
    """Bytes of all layers' frozen weights, of the other weights and of the largest layer; numbers
    of the backbone's values, of those trained within layers, and of all trained."""
    size = DTYPES[work.precision].itemsize
    with torch.device("meta"):
        model = CPMAnt(work.config)
        own = dict(model.named_parameters())
        delta = insert(model, work.delta, "", 0)
    within = {name: 0 for name in map(str, range(work.config.num_layers))}
    for name, parameter in own.items():
        if name.startswith("encoder.layers."):
            linear = work.quantize is not None and parameter.dim() == 2
            # int8 with an fp32 scale and an int8 zero point a row
            n_bytes = parameter.numel() + 5 * len(parameter) if linear else size * parameter.numel()
            within[name.split(".")[2]] += n_bytes
    others = [p.numel() for name, p in own.items() if not name.startswith("encoder.layers.")]
    trained = {name: p.numel() for name, p in delta.parameters.items()}
    inside = sum(n for name, n in trained.items() if name.startswith("encoder.layers."))
    return (
        sum(within.values()),
        size * sum(others),
        max(within.values()),
        sum(p.numel() for p in own.values()),
        inside,
        0 if isinstance(work.delta, NoneConfig) else sum(trained.values()),
    )
