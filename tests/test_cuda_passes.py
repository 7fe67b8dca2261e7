"""What a pass on a GPU does not wait for or copy, as far as a CPU shows it: by order, counts and
tensors of the meta device."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from backbone_oracle import REFERENCE_SHAPE
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cpm_tune.backbone.ant.cache import AntCache
from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.layout import AntLayout
from cpm_tune.backbone.ant.position import PositionBias
from cpm_tune.backbone.fused import aligned, rms_norm
from cpm_tune.backbone.kv_cache import KVCache
from cpm_tune.backbone.opening import random_backbone, read_backbone
from cpm_tune.delta.config import SoftPromptConfig
from cpm_tune.delta.layers import SoftPromptLayer
from cpm_tune.engine.pytorch import TorchEngine
from cpm_tune.tuning import predict, train
from cpm_tune.tuning.predict import Predictor

SHAPE = CPMAntConfig(**REFERENCE_SHAPE)
META = torch.device("meta")


def test_weights_are_moved_one_by_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So the host has one tensor at a time, not the backbone."""
    monkeypatch.setattr("cpm_tune.backbone.opening.check_finite", lambda *given: None)
    shapes = {n: p.shape for n, p in SHAPE.skeleton().named_parameters()}
    alive: list[weakref.ref[Tensor]] = []

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, shape in shapes.items():
            assert sum(tensor() is not None for tensor in alive) <= 1
            whole = torch.zeros(shape)
            alive.append(weakref.ref(whole))
            yield name, whole

    model = read_backbone(SHAPE, tensors(), torch.bfloat16, tmp_path, device=META)
    assert len(alive) == len(shapes)
    assert {(p.device, p.dtype) for p in model.parameters()} == {(META, torch.bfloat16)}


def test_a_weight_is_the_same_on_either_way(tmp_path: Path) -> None:
    whole = dict(random_backbone(SHAPE, 1, torch.float32).state_dict())
    model = read_backbone(SHAPE, whole.items(), torch.bfloat16, tmp_path, device="cpu")
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, whole[name].bfloat16())


def test_the_next_step_is_encoded_before_the_loss_of_this_one_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = list[str]()

    class Losses:
        def tolist(self) -> list[float]:
            log.append("read")
            return [1.0, 2.0]

    monkeypatch.setattr(train, "_passes", lambda *given: log.append("passes") or Losses())
    monkeypatch.setattr(train, "_made", lambda *given: log.append("made") or "following")
    engine = TorchEngine(torch.device("cpu"), "fp32")
    training: Any = SimpleNamespace(
        engine=engine, encoder=SimpleNamespace(rule="generation"), seed=1, total=2
    )
    made: Any = SimpleNamespace(batch=SimpleNamespace(step=1), packed=[], examples=[])
    nothing: Any = None
    assert train._backward(training, made, nothing, nothing, iter([1])) == (3.0, "following")  # type: ignore[list-item,comparison-overlap]
    assert log == ["passes", "made", "read"]
    made.batch.step = 2  # the last
    assert train._backward(training, made, nothing, nothing, iter([])) == (3.0, None)


def test_the_next_examples_are_encoded_before_the_scores_of_these_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = list[str]()

    class Scores:
        def __init__(self, values: Tensor) -> None:
            self.values = values

        def cpu(self) -> Tensor:
            log.append("read")
            return self.values

    def encoded(rows: Any, *others: Any) -> Iterator[Any]:
        for row in rows:
            log.append(f"encoded {row}")
            yield row, SimpleNamespace(id=row)

    def score(self: Predictor, group: list[Any]) -> tuple[Any, Any]:
        log.append("scored")
        return Scores(torch.zeros(len(group), 2)), torch.zeros(len(group), dtype=torch.int64)

    monkeypatch.setattr(predict, "encoded", encoded)
    monkeypatch.setattr(Predictor, "_option_scores", score)
    monkeypatch.setattr(
        predict, "micro_batches", lambda examples, *others: ([example] for example in examples)
    )
    encoder: Any = SimpleNamespace(layout=None, n_options=lambda example: 2)
    model: Any = random_backbone(SHAPE, 1, torch.float32)
    predictor = Predictor(model, None, encoder, None, 9)  # type: ignore[arg-type]
    given = [row for row, *_ in predictor._scored(range(3))]  # type: ignore[arg-type]
    assert given == [0, 1, 2]
    before = [log.index(f"encoded {k}") for k in range(3)]
    reads = [k for k, name in enumerate(log) if name == "read"]
    assert before[1] < reads[0]
    assert before[2] < reads[2]


class Reads(TorchDispatchMode):
    """How often the host asks a device for values."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += str(func).split(".")[1] in ("nonzero", "_local_scalar_dense", "equal")
        return func(*args, **(kwargs or {}))


def test_a_cache_that_loses_rows_asks_the_device_for_nothing() -> None:
    model = random_backbone(SHAPE, 1, torch.float32).eval()
    contexts = [tuple(range(2, 5 + n)) for n in range(4)]
    with torch.inference_mode():
        cache = AntCache(model, AntLayout((), 1, 2, 0), contexts, 1, 3)
        cache.start()
        before = [[part.clone() for part in each.all()] for each in cache.caches]
        with Reads() as reads:
            cache.keep([3, 1])
    assert reads.count == 0
    for each, old in zip(cache.caches, before, strict=True):
        for part, whole in zip(each.all(), old, strict=True):
            assert torch.equal(part, whole[[3, 1]])


def test_a_layers_cache_without_keys_loses_nothing() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    KVCache(3).keep(1, none, none)


@pytest.mark.parametrize("keys", [1, 7, 8, 33])
def test_a_bias_on_a_gpu_has_rows_that_begin_at_eights(keys: int) -> None:
    bias = torch.randn(2, 3, 5, keys)
    on_device = aligned(bias.to(META))
    assert on_device.shape == bias.shape
    assert all(stride % 8 == 0 for stride in on_device.stride()[:-1])
    assert on_device.stride(-1) == 1
    assert aligned(bias) is bias


def test_a_steps_bias_in_decoding_is_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    given = list[int]()
    at: Callable[[Tensor], Tensor] = lambda bias: given.append(bias.shape[-1]) or bias  # noqa: E731
    monkeypatch.setattr("cpm_tune.backbone.ant.cache.aligned", at)
    monkeypatch.setattr("cpm_tune.backbone.ant.model.aligned", at)
    model = random_backbone(SHAPE, 1, torch.float32).eval()
    with torch.inference_mode():
        cache = AntCache(model, AntLayout((), 1, 2, 0), [(2, 3, 4)], 1, 3)
        cache.start()
        cache.step(torch.tensor([[5]]), torch.tensor([[0]]))
    assert given == [3, 4]


def test_buckets_are_those_of_the_formula_and_come_from_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bias = PositionBias(SHAPE)
    distances = torch.arange(-3 * SHAPE.position_bias_max_distance, 3000)
    assert torch.equal(bias._bucket(distances), bias._computed(distances))
    asked = list[torch.device]()
    computed = bias._computed

    def noting(relative: Tensor) -> Tensor:
        asked.append(relative.device)
        return computed(relative)

    monkeypatch.setattr(bias, "_computed", noting)
    for _ in range(2):
        assert bias._bucket(distances.to(META)).device == META
    assert asked == [torch.device("cpu")]


def test_buckets_that_were_made_while_scoring_serve_full_fine_tuning() -> None:
    bias = PositionBias(SHAPE)
    torch.nn.init.normal_(bias.relative_attention_bias)
    segment = torch.zeros(1, 6, dtype=torch.int64)
    with torch.inference_mode():
        bias(segment)
    bias(segment).sum().backward()
    assert bias.relative_attention_bias.grad is not None


def test_a_soft_prompt_asks_a_device_once_and_a_cpu_every_time() -> None:
    layer = SoftPromptLayer(SoftPromptConfig(soft_token_num=6), 5, 4, 1.0, torch.device("cpu"))
    layer.train()
    for index, fails in ((torch.tensor([[1, 5]]), False), (torch.tensor([[1, 2]]), True)):
        layer.pre_forward(index)
        if fails:
            with pytest.raises(Exception, match="in no sequence of this batch"):
                layer.post_forward(torch.zeros(1, 2, 4))
        else:
            layer.post_forward(torch.zeros(1, 2, 4))
    layer._found = True  # as after the first pass on a device
    layer.pre_forward(torch.tensor([[1, 5]]))
    with Reads() as reads:
        layer.post_forward(torch.zeros(1, 2, 4))
    assert reads.count == 0


def test_a_norms_gradient_in_half_precision_is_finite_with_a_scaled_loss() -> None:
    x = torch.full((2, 4096), 8.0, dtype=torch.float16, requires_grad=True)
    rms_norm(x, torch.ones(4096), 1e-6).backward(torch.full((2, 4096), 80.0, dtype=torch.float16))
    assert x.grad is not None
    assert x.grad.isfinite().all()
