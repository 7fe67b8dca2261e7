"""The bmtrain engine: the layers' weights sharded over GPUs by BMTrain 1.0.1 (ZeRO-3 or ZeRO-2).

BMTrain shards what it wraps. It wraps the layers before their values are read and before the delta
is inserted: no process ever has more than its share of them, and BMTrain never sees the delta. Both
of BMTrain's ways for a delta are worse. A delta wrapped with its layer is sharded and gathered like
it; one that OpenDelta inserts with `backend="bmt"` becomes parameters that are each gathered in
every pass and reduced in every backward pass of every micro-batch. Here a delta is whole in every
process and its gradients are summed once per step, as in the torch engine, whose files and
checkpoints are therefore the same. Without that sum the processes would drift apart.

Embeddings, position bias and last norm are whole as well: decoding and scoring use them outside the
forward pass.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cpm_tune.common.door import load
from cpm_tune.engine.pytorch import layers_of, sum_gradients, together
from cpm_tune.engine.rank import RankInfo
from cpm_tune.engine.sharded import ShardedEngine
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Execution


def _join(process: RankInfo, local: int) -> None:
    """Let BMTrain join the group of processes that the environment describes, on the CUDA device
    of index `local`, which it makes the current one."""
    import bmtrain

    if bmtrain.init.is_initialized():
        return
    warnings.filterwarnings("ignore", message="TypedStorage is deprecated")
    os.environ.update(
        RANK=str(process.rank), WORLD_SIZE=str(process.world_size), LOCAL_RANK=str(local)
    )
    os.environ.setdefault("LOCAL_WORLD_SIZE", str(local + 1))
    if process.world_size == 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    # It divides the cores among the processes, which the launcher has done already.
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    bmtrain.init.print_dict = lambda *given: None  # ten lines from every process
    bmtrain.init_distributed()
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)


class BMTrainEngine(ShardedEngine):
    """ZeRO-3 gathers a layer before every pass; ZeRO-2 keeps it from forward to backward."""

    name = "bmtrain"

    def __init__(
        self, device: torch.device, precision: str, process: RankInfo, execution: Execution
    ) -> None:
        _join(process, max(process.local_rank, 0) if device.index is None else device.index)
        import bmtrain

        if bmtrain.init.torch.empty(0, device="cuda").device.type != device.type:
            raise UserError(
                f"run.device is {device}, but --engine bmtrain runs on CUDA devices; omit it."
            )
        super(ShardedEngine, self).__init__(device, precision, process)
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
        if not model.layers_wrappable:
            raise UserError(
                "--engine bmtrain does not wrap the layers of this backbone's network "
                "(docs/bmtrain.md has those that it wraps); use --engine torch, with run.shard to "
                "divide them."
            )
        inside = {id(p) for layer in layers_of(model) for p in layer.parameters()}
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is None:
                    continue
                if id(parameter) in inside:  # BMTrain copies a process's share: of one zero
                    values = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
                else:
                    values = torch.empty_like(parameter, device=self.device)
                module._parameters[name] = nn.Parameter(values, requires_grad=False)
        for stack in model.layers:
            for number, layer in enumerate(stack):
                block = self._bmt.Block(
                    _taking_parts(self._bmt.BMTrainModelWrapper(layer), model),
                    use_checkpoint=self.checkpointing,
                    zero_level=self.zero,
                )
                block.register_forward_pre_hook(partial(_with_parts, model), with_kwargs=True)
                stack[number] = block
        model.sharded = True
        return True

    def prepare(self, model: Any) -> Any:
        layers = layers_of(model)
        if not all(isinstance(layer, self._bmt.Block) for layer in layers):
            raise UserError("a backbone loaded whole cannot be sharded; load it again.")
        for layer in layers:
            self._train_shares(layer)

        def begin(first: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            """A block whose input has no gradient would not free what its backward pass gathers;
            one of ZeRO-2 would not keep its weights after passes without gradients."""
            for layer in layers:
                layer.all_param_no_grad = False
            x, *others = given
            return x.requires_grad_() if torch.is_grad_enabled() else x, *others

        for stack in model.layers:
            stack[0].register_forward_pre_hook(begin, prepend=True)
        return model

    def _train_shares(self, layer: Any) -> None:
        """Full fine-tuning: frozen storage gets gradients, sharded like the weights."""
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
        if self._manager.optimizers != [optimizer]:  # one engine serves several runs
            self._manager.optimizers, self._manager.lr_schedulers = [], []
            self._manager.add_optimizer(optimizer)
        whole = [p for p in parameters if not isinstance(p, self._bmt.DistributedParameter)]
        if self.world_size > 1:
            sum_gradients(whole, self._sum)
        # It sums the squares over all processes, which is right for shards only.
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
        if self._overflow:  # its check covers half-precision gradients only
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


def _with_parts(
    model: Any, block: nn.Module, given: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Pass a block its arguments by place, and the tensors within them as separate ones, too.

    It takes no others; it detaches tensor arguments from the graph and gives them gradients.
    Through what is within an argument its backward pass would continue into a trained position
    bias, once per layer.
    """
    x, *others = given
    return (x, (tuple(others), named), *model.tensors_in(others)), {}


def _taking_parts(layer: Any, model: Any) -> Any:
    """Let a layer accept what `_with_parts` makes of its arguments; returns the layer."""
    forward = layer.forward

    def taking(x: Tensor, given: tuple[tuple[Any, ...], dict[str, Any]], *parts: Tensor) -> Any:
        others, named = given
        return forward(x, *model.with_tensors(others, parts), **named)

    layer.forward = taking
    return layer
