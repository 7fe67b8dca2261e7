"""Estimates the memory that tuning takes in each process, without reading weights or data.

Weights, gradients and optimiser states are counted, activations measured on fake tensors
(`cpm_tune.memory.meter`). What Python, its libraries and the heap add on a host was measured.
CUDA's context and fragmentation on a GPU are not included.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from cpm_tune.delta.config import FullConfig
from cpm_tune.engine.device import DTYPES
from cpm_tune.engine.memory import keeps_freed
from cpm_tune.memory.meter import measure_step
from cpm_tune.planning.plan import Plan
from cpm_tune.planning.skeleton import Skeleton
from cpm_tune.schema.spec import Execution
from cpm_tune.task import Options

_FP32 = 4
_LIBRARIES = 500 * 2**20  # a run's process without what is counted: Python, torch, sklearn, ...
_HEAP = 0.4  # of what a step allocates: what the heap keeps besides, where freed memory is kept
_DOCUMENTS = 8  # per example, if documents are ranked
# Layers that a process has whole at one time: with FSDP2 the one in use, and the next one twice, as
# received and as copied out; with BMTrain's ZeRO-3 one.
_GATHERED = {"torch": 3, "bmtrain": 1}


@dataclass(frozen=True)
class Work:
    """What is to be tuned, and how. `batch_size` counts examples over all `nproc` processes.

    An example has `sequences` of `length` tokens: one per option, if options are scored by a word
    in the prompt. `answer_tokens`: tokens of each example that are predicted over the vocabulary; 0
    if options are scored in the prompt. `generates`: whether evaluation generates texts. `gpu`:
    whether the device is not the host.
    """

    skeleton: Skeleton
    batch_size: int
    length: int
    sequences: int = 1
    answer_tokens: int = 0
    precision: str = "fp32"
    quantize: str | None = None
    nproc: int = 1
    execution: Execution = field(default_factory=Execution)
    generates: bool = False
    gpu: bool = False

    @property
    def bmtrain(self) -> bool:
        """Whether the engine is BMTrain's."""
        return self.execution.engine == "bmtrain"

    @property
    def sharded(self) -> bool:
        """Whether each process has only a shard of the layers."""
        return self.bmtrain or self.execution.shard or self.execution.offload

    @property
    def checkpointing(self) -> bool:
        """Whether activations are recomputed; with BMTrain's ZeRO-3 they always are."""
        return self.execution.checkpointing or (self.bmtrain and self.execution.zero == 3)

    @property
    def examples(self) -> int:
        """Examples per forward pass of one process."""
        share = math.ceil(self.batch_size / self.nproc)
        return max(1, min(share, self.execution.micro_tokens // (self.length * self.sequences)))


@dataclass(frozen=True)
class Memory:
    """Bytes in one process.

    On the device: `weights` of the frozen backbone; `gathered`, sharded layers while they are used;
    `delta`, `gradients` and `optimizer` of what is trained; `activations`, which the forward pass
    keeps for the backward pass. `peak` is the highest total at any moment, not the sum; on a CPU it
    includes `copies`, in host memory: the best delta and other values that are kept. `host`: the
    total in host memory if the device is a GPU, without libraries.

    In host memory: `libraries`, Python's and what they keep; `heap`, freed memory between blocks in
    use. `process`: the peak of the whole process in host memory, as the system reports it.
    """

    weights: int
    gathered: int
    delta: int
    gradients: int
    optimizer: int
    activations: int
    copies: int
    peak: int
    host: int
    libraries: int
    heap: int

    @property
    def process(self) -> int:
        return self.libraries + (self.host or self.peak + self.heap)


def estimate(work: Work) -> Memory:
    """The memory of each process."""
    layers, rest, deepest, trained_in_layers = _sizes(work)
    trained = work.skeleton.n_trained
    whole = isinstance(work.skeleton.delta, FullConfig)
    n = work.nproc if work.sharded else 1
    values = trained  # in this process
    if whole and work.bmtrain:
        values = math.ceil(trained_in_layers / n) + trained - trained_in_layers
    delta = _FP32 * values
    states, gradients = 2 * delta, delta

    resident, gathered, offloaded = math.ceil(layers / n), 0, 0
    if work.sharded:
        gathered = min(layers, _GATHERED["bmtrain" if work.bmtrain else "torch"] * deepest)
        if work.bmtrain and work.execution.zero == 2:
            gathered = layers  # kept from the forward to the backward pass
        if work.execution.offload and work.bmtrain:
            states, offloaded = 0, states
        elif work.execution.offload:
            offloaded = resident
            resident = 0 if work.gpu else resident
    weights = 0 if whole else resident + rest

    shape, how = work.skeleton.config.shape, (work.length, work.answer_tokens, work.precision)
    step = measure_step(work.skeleton, work.examples * work.sequences, *how, work.checkpointing)
    extra = step.peak if values == trained else step.peak_without_gradients + gradients
    tokens = work.execution.micro_tokens
    # evaluation fills its passes, even if a batch is small
    dev = measure_step(work.skeleton, max(1, tokens // work.length), *how, training=False)
    extra = max(extra, dev.peak + _cache(work, tokens))
    # The best delta, and the original backbone, which full fine-tuning restores.
    copies = _FP32 * trained + (resident + rest if whole else 0)
    peak = weights + gathered + delta + states + extra
    # The largest weight is read from the file in fp32 and then converted.
    loading = weights + delta + _FP32 * shape.vocabulary * shape.width
    if not work.gpu:  # a checkpoint is written from one more copy of the delta
        peak = max(peak - extra + max(extra, _FP32 * trained) + copies, loading)
    host = copies + _FP32 * trained + offloaded
    if not work.sharded:
        host = max(host, layers + rest)  # read there, then moved
    kept = not work.gpu and keeps_freed(layers + rest)
    return Memory(
        weights=weights,
        gathered=gathered,
        delta=delta,
        gradients=gradients,
        optimizer=states,
        activations=step.saved,
        copies=copies,
        peak=peak,
        host=host if work.gpu else 0,
        libraries=_LIBRARIES,
        heap=int(_HEAP * extra) if kept else 0,
    )


def work_of(plan: Plan, skeleton: Skeleton, nproc: int = 1, gpu: bool = False) -> Work:
    """A plan's work, if every sequence has the maximum length."""
    spec, answer = plan.spec, plan.task.answer
    sequences, answer_tokens = 1, 2
    if spec.decoding is not None:
        answer_tokens = spec.decoding.max_new_tokens
    elif plan.scoring == "mean-nll":
        answer_tokens = spec.encoding.max_length
    elif plan.scoring == "yes-logit":
        most = answer.most if isinstance(answer, Options) else _DOCUMENTS
        sequences, answer_tokens = len(plan.template.options) or most, 0
    return Work(
        skeleton=skeleton,
        batch_size=spec.recipe.batch_size if spec.recipe else 32,
        length=spec.encoding.max_length,
        sequences=sequences,
        answer_tokens=answer_tokens,
        precision=spec.precision,
        quantize=spec.backbone.quantize,
        nproc=nproc,
        execution=plan.execution,
        generates=spec.decoding is not None,
        gpu=gpu,
    )


def _cache(work: Work, slots: int) -> int:
    """Bytes of the decoder's cache of keys and values."""
    each = work.skeleton.config.shape.cached * DTYPES[work.precision].itemsize
    return slots * each if work.generates else 0


def _sizes(work: Work) -> tuple[int, int, int, int]:
    """Bytes of all layers' frozen weights, of the other weights and of the largest layer; number of
    values trained within layers."""
    size, skeleton = DTYPES[work.precision].itemsize, work.skeleton
    layers: Counter[str] = Counter()
    rest = 0
    for name, shape in skeleton.backbone.items():
        if (layer := skeleton.layer_of(name)) is None:
            rest += size * shape.numel()
        elif work.quantize is not None and len(shape) == 2:
            # int8 with an fp32 scale and an int8 zero point per row
            layers[layer] += shape.numel() + 5 * shape[0]
        else:
            layers[layer] += size * shape.numel()
    inside = [n for name, n in skeleton.trained.items() if skeleton.layer_of(name) is not None]
    return (
        layers.total(),
        rest,
        max(layers.values(), default=0),
        sum(shape.numel() for shape in inside),
    )
