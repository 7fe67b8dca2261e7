"""The bmtrain engine: the layers' weights divided over GPUs by BMTrain 1.0.1 (ZeRO-3 or ZeRO-2).

BMTrain divides what it wraps. It wraps the layers before their values are read and before the delta
is inserted: no process ever holds more than its share of them, and BMTrain never sees the delta.
Its own ways are both worse for one. A delta that is wrapped with its layer is divided and gathered
like it; one that OpenDelta inserts with `backend="bmt"` becomes parameters each of which is
gathered by itself in every pass and reduced in every backward pass of every micro-batch. Here a
delta is whole everywhere and its gradients are summed once a step, as in the torch engine, whose
files and checkpoints are therefore the same. Without that sum the processes would drift apart.

Embeddings, position bias and last norm are whole as well: decoding and scoring use them outside of
the forward pass.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cpm_tune.backbone.spans import SpanBias
from cpm_tune.common.door import load
from cpm_tune.engine.bmtrain_found import trouble
from cpm_tune.engine.device import choose_device
from cpm_tune.engine.pytorch import join_group, sum_gradients, together
from cpm_tune.engine.rank import RankInfo
from cpm_tune.engine.sharded import ShardedEngine
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Execution


def make_bmtrain(execution: Execution, precision: str) -> BMTrainEngine:
    """Return the engine; raise UserError where it cannot run."""
    found = trouble()
    if found is not None:
        what, mend = found
        raise UserError(f"--engine bmtrain: {what}; {mend}.")
    own = join_group("cpu")  # objects and counts go by gloo, tensors by BMTrain's NCCL
    device = choose_device(execution.device, own.local_rank)
    _join(own)
    if execution.threads:
        torch.set_num_threads(execution.threads)
    import bmtrain

    if bmtrain.init.torch.empty(0, device="cuda").device.type != device.type:
        raise UserError(
            f"run.device is {device}, but --engine bmtrain runs on CUDA devices; leave it out."
        )
    return BMTrainEngine(device, precision, own, execution)


def _join(own: RankInfo) -> None:
    """Let BMTrain join the group of processes that the environment describes."""
    import bmtrain

    if bmtrain.init.is_initialized():
        return
    warnings.filterwarnings("ignore", message="TypedStorage is deprecated")
    local = max(own.local_rank, 0)
    os.environ.update(RANK=str(own.rank), WORLD_SIZE=str(own.world_size), LOCAL_RANK=str(local))
    os.environ.setdefault("LOCAL_WORLD_SIZE", str(local + 1))
    if own.world_size == 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    # It takes a share of the cores for each process: whoever started them has done that.
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    bmtrain.init.print_dict = lambda *given: None  # ten lines from every process
    bmtrain.init_distributed()
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)


class BMTrainEngine(ShardedEngine):
    """ZeRO-3 gathers a layer before every pass; ZeRO-2 keeps it from forward to backward."""

    name = "bmtrain"

    def __init__(
        self, device: torch.device, precision: str, own: RankInfo, execution: Execution
    ) -> None:
        import bmtrain

        super(ShardedEngine, self).__init__(device, precision, own)
        self._bmt, self.offload, self.zero = bmtrain, execution.offload, execution.zero
        # Without checkpointing autograd keeps what was gathered: ZeRO-3 would save nothing.
        self.checkpointing = execution.checkpointing or execution.zero == 3
        self._manager = bmtrain.optim.OptimManager(
            loss_scale=2.0**16 if precision == "fp16" else None,  # as torch's scaler
            loss_scale_steps=2000,
            grad_scale=1,  # losses are parts of a sum, not of a mean
        )
        self._overflow = False

    @property
    def has_loss_scaling(self) -> bool:
        return self._manager.loss_scale_enabled and self._manager.loss_scale > 1

    def materialise(self, model: Any) -> bool:
        layers = model.encoder.layers
        inside = {id(p) for p in layers.parameters()}
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is None:
                    continue
                if id(parameter) in inside:  # BMTrain copies the share of a process: of one zero
                    values = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
                else:
                    values = torch.empty_like(parameter, device=self.device)
                module._parameters[name] = nn.Parameter(values, requires_grad=False)
        for number, layer in enumerate(layers):
            block = self._bmt.Block(
                _taking_biases(self._bmt.BMTrainModelWrapper(layer)),
                use_checkpoint=self.checkpointing,
                zero_level=self.zero,
            )
            block.register_forward_pre_hook(_with_biases)
            layers[number] = block
        return True

    def prepare(self, model: Any) -> Any:
        layers = model.encoder.layers
        if not all(isinstance(layer, self._bmt.Block) for layer in layers):
            raise UserError("a backbone that was loaded whole cannot be divided; load it anew.")
        for layer in layers:
            self._train_shares(layer)

        def begin(encoder: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            """A block whose input has no gradient would not let go of what its backward pass
            gathers; one of ZeRO-2 forgets, after passes without gradients, to keep what it has."""
            for layer in layers:
                layer.all_param_no_grad = False
            x, *others = given
            return x.requires_grad_() if torch.is_grad_enabled() else x, *others

        model.encoder.register_forward_pre_hook(begin)
        return model

    def _train_shares(self, layer: Any) -> None:
        """Full fine-tuning: what was laid out frozen gets gradients, divided like the weights."""
        if not any(info["parameter"].requires_grad for info in layer._param_info):
            return
        for name, storage in layer._storage_params.items():
            storage.requires_grad_(True)
            layer._storage_info[name]["requires_grad"] = True

    def optimizer(
        self, parameters: Sequence[nn.Parameter], betas: tuple[float, float], weight_decay: float
    ) -> torch.optim.Optimizer:
        if not self.offload:
            return super().optimizer(parameters, betas, weight_decay)

        return load("cpm_tune.engine.bmtrain_adam:AdamWOffload")(parameters, betas, weight_decay)

    def backward(self, loss: Tensor) -> None:
        self._manager.backward(loss)

    def clip(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], max_norm: float
    ) -> float:
        if self._manager.optimizers != [optimizer]:  # the engine serves a run after the other
            self._manager.optimizers, self._manager.lr_schedulers = [], []
            self._manager.add_optimizer(optimizer)
        whole = [p for p in parameters if not isinstance(p, self._bmt.DistributedParameter)]
        if self.world_size > 1:
            sum_gradients(whole, self._sum)
        # It adds up the squares of all processes, which is right for shares only.
        gradients = [p.grad for p in whole if p.grad is not None]
        times = math.sqrt(self.world_size)
        for gradient in gradients:
            gradient /= times
        norm = self._manager.clip_grad_norm(optimizer.param_groups, max_norm)
        for gradient in gradients:
            gradient *= times
        self._overflow = self._manager.loss_scale_enabled and not math.isfinite(norm)
        return float(norm)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        if self._overflow:  # its own check looks at half-precision gradients only
            self._manager._justify_scale(self._manager.loss_scale / self._manager.loss_scale_factor)
        else:
            self._manager.step()
        self._manager.zero_grad()

    def state(self) -> dict[str, Any]:
        manager = self._manager
        known = {"scale": manager.loss_scale, "_growth_tracker": manager.steps_since_last_scale}
        saved = super().state()
        return {**saved, **known} if saved else {}

    def load_state(self, state: dict[str, Any]) -> None:
        if state:
            self._manager.loss_scale = state["scale"]
            self._manager.steps_since_last_scale = state["_growth_tracker"]

    def _sum(self, values: Tensor) -> None:
        storage = values.storage()  # type: ignore[no-untyped-call]
        with together():
            self._bmt.nccl.allReduce(storage, storage, "sum", self._bmt.config["comm"])


def _with_biases(block: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Hand a block the tensors within its bias, too, as arguments of their own.

    It detaches arguments from the graph and gives them gradients; into others it does not look, and
    its backward pass would go on through a trained position bias, once for every layer.
    """
    x, bias, cache, rows = (*given, None, None)[:4]
    biases = bias.biases if isinstance(bias, SpanBias) else ()
    return x, bias, cache, rows, *biases


def _taking_biases(layer: Any) -> Any:
    """Let a layer take what `_with_biases` adds; returns it."""
    forward = layer.forward

    def taking(x: Tensor, bias: Any, cache: Any, rows: Any, *biases: Tensor) -> Any:
        return forward(x, bias.of(biases) if biases else bias, cache, rows)

    layer.forward = taking
    return layer
