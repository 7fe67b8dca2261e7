"""What only a CUDA device shows. `python benchmarks/gpu.py` runs these tests; without a device they
are skipped. `CPM_TUNE_TEST_DEVICE=cpu` runs those that make sense there, to test the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from causal_folders import make_folder
from conftest import CLI, REPOSITORY
from delta_table import DELTAS, SHA, perturb
from test_kernels import batch
from torch import Tensor

from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.ant.layout import AntLayout
from cpm_tune.backbone.ant.streamed import open_streamed
from cpm_tune.backbone.opening import random_backbone
from cpm_tune.backbone.quantize import quantize_int8
from cpm_tune.common import environment
from cpm_tune.decode import Request, generate
from cpm_tune.delta.config import LoraConfig
from cpm_tune.delta.insert import insert
from cpm_tune.engine.bmtrain_found import trouble
from cpm_tune.engine.device import choose_device, is_device_lost, is_out_of_memory
from cpm_tune.engine.engine import make_engine
from cpm_tune.engine.pytorch import TorchEngine, sum_gradients
from cpm_tune.engine.sharded import ShardedEngine
from cpm_tune.schema.spec import Decoding, Execution
from cpm_tune.tuning.predict import batch_loss

NAME = os.environ.get("CPM_TUNE_TEST_DEVICE", "cuda")
ON_CUDA = NAME.startswith("cuda")
SHAPE = CPMAntConfig(
    vocab_size=500,
    dim_model=64,
    num_layers=6,
    dim_ff=128,
    num_heads=2,
    dim_head=32,
    position_bias_num_buckets=32,
)
CLOSE = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 1e-2}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        NAME == "cuda" and not torch.cuda.is_available(), reason="torch sees no CUDA device"
    ),
]
only_cuda = pytest.mark.skipif(not ON_CUDA, reason="a CPU does not show this")


def engine(precision: str = "fp32", **how: Any) -> TorchEngine:
    return make_engine(Execution(device=NAME, **how), precision)


def step(
    precision: str, device: bool, config: Any, dropout: int | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a pass and the delta's gradients, on the device or on the CPU in fp32."""
    runs = engine(precision) if device else TorchEngine(torch.device("cpu"), "fp32")
    model = random_backbone(SHAPE, 1, DTYPES[precision if device else "fp32"]).train()
    delta = insert(model, config, SHA, seed=1)
    perturb(delta)
    model = runs.prepare(model)
    runs.seed(1, dropout or 0)
    with runs.autocast():
        loss = batch_loss(model, batch("lcqmc").to(runs.device), "generation")
    loss.backward()  # type: ignore[no-untyped-call]
    grads = {n: p.grad for n, p in delta.parameters.items() if p.grad is not None}
    assert {g.device for g in grads.values()} == {runs.device}
    assert {g.dtype for g in grads.values()} == {torch.float32}
    return loss.detach().cpu(), {name: grad.cpu() for name, grad in grads.items()}


def near(a: Tensor, b: Tensor, share: float) -> None:
    """Equal but for rounding, as a share of the largest value."""
    assert a.isfinite().all()
    assert float((a - b).abs().max()) <= share * max(1e-3, float(b.abs().max()))


@pytest.mark.parametrize("name", [n for n in DELTAS if not n.startswith("soft_prompt")])
def test_every_delta_has_the_gradients_of_a_cpu(name: str) -> None:
    loss, grads = step("fp32", True, DELTAS[name])
    expected, of_cpu = step("fp32", False, DELTAS[name])
    near(loss, expected, 1e-4)
    assert grads.keys() == of_cpu.keys()
    for key, grad in grads.items():
        near(grad, of_cpu[key], 2e-3)


@pytest.mark.parametrize("precision", CLOSE)
def test_every_precision_is_near_fp32_on_a_cpu(precision: str) -> None:
    if precision == "fp16" and not ON_CUDA:
        pytest.skip("half precision on a CPU is bf16")
    loss, grads = step(precision, True, LoraConfig(lora_r=8))
    expected, of_cpu = step("fp32", False, LoraConfig(lora_r=8))
    near(loss, expected, CLOSE[precision])
    for key, grad in grads.items():
        near(grad, of_cpu[key], 6 * CLOSE[precision])


def test_texts_are_those_of_a_cpu() -> None:
    """Also of rows that end at different steps, and with beams."""
    prefixes = [tuple(range(2, 5 + 3 * n)) for n in range(5)]
    made = []
    for runs in (engine(), TorchEngine(torch.device("cpu"), "fp32")):
        model = runs.prepare(random_backbone(SHAPE, 1, torch.float32).eval())
        for beams in (1, 3):
            request = Request(
                Decoding(max_new_tokens=12, beams=beams),
                AntLayout((), 1, 2, 0),
                stop=frozenset(range(10, 60)),
            )
            made.append(generate(model, prefixes, request))
    ours, theirs = made[:2], made[2:]
    for some, others in zip(ours, theirs, strict=True):
        assert [h[0].ids for h in some] == [h[0].ids for h in others]
        assert all(abs(a[0].score - b[0].score) < 1e-3 for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_causal_model_scores_and_writes_as_on_a_cpu(kind: str, tmp_path: Path) -> None:
    from cpm_tune.backbone.families import open_folder as open_any

    folder = open_any(make_folder(tmp_path / kind, kind))
    results = []
    for runs in (engine(), TorchEngine(torch.device("cpu"), "fp32")):
        model = runs.prepare(folder.open(torch.float32, device=runs.device).eval())
        tokens = torch.arange(5, 35).view(2, 15)
        with torch.inference_mode():
            scores = torch.cat(list(model.scores(model.dummy(tokens, 3).to(runs.device))))
        assert scores.device.type == runs.device.type
        results.append(scores.cpu())
    near(*results, 1e-4)


@only_cuda
def test_a_training_step_never_waits_for_the_device() -> None:
    runs = engine("bf16")
    model = random_backbone(SHAPE, 1, torch.bfloat16).train()
    delta = insert(model, LoraConfig(lora_r=8), SHA, seed=1)
    model = runs.prepare(model)
    optimizer = runs.optimizer(list(delta.parameters.values()), (0.9, 0.999), 0.01)
    for mode in ("default", "error"):  # the first step loads kernels and tables
        moved = batch("lcqmc").to(runs.device)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode(mode)
        try:
            with runs.autocast():
                loss = batch_loss(model, moved, "generation")
            runs.backward(loss)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        runs.step(optimizer)


@only_cuda
def test_attention_leaves_cudnn_out_and_a_step_launches_few_kernels() -> None:
    runs = engine("bf16")
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    model = random_backbone(SHAPE, 1, torch.bfloat16).train()
    insert(model, LoraConfig(lora_r=8), SHA, seed=1)
    model = runs.prepare(model)

    def work() -> None:
        with runs.autocast():
            batch_loss(model, batch("lcqmc").to(runs.device), "generation").backward()

    work()
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        work()
    launches = sum(e.count for e in profile.key_averages() if "LaunchKernel" in e.key)
    assert 0 < launches / SHAPE.num_layers <= 120, profile.key_averages().table(row_limit=20)


DETERMINISTIC = """
import torch
from test_gpu import step
from cpm_tune.delta.config import LoraConfig
torch.use_deterministic_algorithms(True)
made = [step("bf16", True, LoraConfig(lora_r=8)) for _ in range(2)]
assert torch.equal(made[0][0], made[1][0])
for name, grad in made[0][1].items():
    assert torch.equal(grad, made[1][1][name]), name
"""


def program(text: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program with the tests' modules in a process of its own."""
    paths = [str(REPOSITORY), str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, "-c", text, *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_step_in_deterministic_mode_has_the_same_bits_twice() -> None:
    done = program(DETERMINISTIC, CUBLAS_WORKSPACE_CONFIG=":4096:8")
    assert done.returncode == 0, done.stderr[-2000:]


def test_dropout_follows_from_seed_and_step_and_so_does_a_resumed_run() -> None:
    config = LoraConfig(lora_r=8, lora_dropout=0.3)
    first, again = (step("fp32", True, config, dropout=3)[1] for _ in range(2))
    other = step("fp32", True, config, dropout=4)[1]
    for name, grad in first.items():
        near(grad, again[name], 1e-5)
    assert any(float((g - other[n]).abs().max()) > 1e-4 for n, g in first.items())


def test_layers_that_come_and_go_are_the_whole_backbone_bit_for_bit(small_backbone: Path) -> None:
    """Again and again, with work of other streams between."""
    folder, runs = open_folder(small_backbone), engine()
    whole = runs.prepare(folder.open(torch.float32, device=runs.device).eval())
    with pytest.raises(Exception, match="needs") as caught:
        open_streamed(folder, torch.float32, limit=1, device=runs.device)
    least = str(caught.value).partition("needs ")[2].partition("B,")[0]
    limit = float(least[:-1]) * {"K": 1e3, "M": 1e6}[least[-1]] * 1.02
    small = open_streamed(folder, torch.float32, limit=int(limit), device=runs.device).eval()
    small = runs.prepare(small)
    tokens = torch.arange(10, 90).view(4, 20)
    with torch.inference_mode():
        for _ in range(20):
            scores = [
                torch.cat(list(model.scores(model.dummy(tokens, 2).to(runs.device))))
                for model in (small, whole)
            ]
            assert torch.equal(*scores)


@only_cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_second_gpu_alone_is_the_current_one() -> None:
    device = choose_device("cuda:1", -1)
    assert torch.cuda.current_device() == 1
    runs = TorchEngine(device, "fp32")
    runs.seed(1, 2)
    first = torch.rand(3, device=device)
    runs.seed(1, 2)
    assert torch.equal(first, torch.rand(3, device=device))
    choose_device("cuda:0", -1)


def test_int8_weights_score_as_the_rounded_ones() -> None:
    pytest.importorskip("torchao", reason="the extra int8")
    results = []
    for runs in (engine(), TorchEngine(torch.device("cpu"), "fp32")):
        model = quantize_int8(random_backbone(SHAPE, 1, torch.float32)).eval()
        model = runs.prepare(model)
        with torch.inference_mode():
            results.append(float(batch_loss(model, batch("lcqmc").to(runs.device), "generation")))
    assert results[0] == pytest.approx(results[1], rel=1e-3)


def test_memory_and_names_are_recorded() -> None:
    runs = engine()
    environment.reset_peak_memory(runs.device)
    made = torch.ones(2**20, device=runs.device)
    assert environment.peak_memory_bytes(runs.device) >= made.nbytes
    if ON_CUDA:
        about = environment.gpu(runs.device)
        assert about["name"] == torch.cuda.get_device_name(runs.device)
        assert about["cuda"]


@only_cuda
def test_a_lack_of_memory_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8, device=NAME)
    assert is_out_of_memory(caught.value)
    assert not is_device_lost(caught.value)


LOST = """
import sys
import torch
from cpm_tune.engine.device import is_device_lost
try:
    torch.zeros(3, device=sys.argv[1])[torch.tensor([7], device=sys.argv[1])].tolist()
except RuntimeError as error:
    assert is_device_lost(error), repr(error)
    try:
        torch.ones(1, device=sys.argv[1]).tolist()
    except RuntimeError as error:
        assert is_device_lost(error), repr(error)
        print("lost")
"""


@only_cuda
def test_an_assertion_in_a_kernel_is_a_lost_device() -> None:
    done = program(LOST, NAME)
    assert done.stdout == "lost\n", done.stderr[-2000:]


ALLOCATOR = """
import os, sys
from cpm_tune.common.allocator import set_allocator
set_allocator(os.environ)
import torch
for size in (2**20, 2**28):
    torch.empty(size, dtype=torch.uint8, pin_memory=sys.argv[1] != "cpu").to(sys.argv[1])
"""


def test_the_allocators_accept_their_settings() -> None:
    plain = dict.fromkeys(("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"), "")
    text = "import os\n" + "".join(f"os.environ.pop({name!r})\n" for name in plain)
    done = program(text + ALLOCATOR, NAME, **plain)
    assert (done.returncode, done.stderr) == (0, "")


SUM = """
import sys
import torch
import torch.distributed as dist
from cpm_tune.engine.pytorch import sum_gradients
backend = "cpu:gloo,cuda:nccl" if sys.argv[1] != "cpu" else "gloo"
if sys.argv[1] != "cpu":
    torch.cuda.set_device(0)
dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
parameter = torch.nn.Parameter(torch.ones(3, device=sys.argv[1]))
parameter.grad = torch.arange(3.0, device=sys.argv[1])
sum_gradients([parameter, torch.nn.Parameter(torch.ones(2, device=sys.argv[1]))])
assert parameter.grad.tolist() == [0, 1, 2]
dist.destroy_process_group()
"""


def test_one_process_sums_by_nccl() -> None:
    done = program(SUM, NAME)
    assert done.returncode == 0, done.stderr[-2000:]
    assert callable(sum_gradients)


def curve(cli: CLI, tmp_path: Path, backbone: Path, *words: str) -> list[float]:
    """Gradient norms or losses of a short run, from its log."""
    out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    code, _, error = cli(
        *("--task", "lcqmc", "--delta", "lora", "--backbone", backbone, "--limit", "32"),
        *("--control", "none", "--out", out, "--set", f"run.device={NAME}"),
        *("--set", "train.max_steps=4", "--set", "train.eval_every=4"),
        *("--set", "train.batch_size=8", *words),
    )
    assert code == 0, error
    (log,) = out.glob("*/log.jsonl")
    lines = map(json.loads, log.read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize(
    "words", [("--offload",), ("--checkpointing",), ("--set", "run.micro_tokens=256")]
)
def test_a_run_is_the_same_offloaded_recomputed_and_in_smaller_passes(
    cli: CLI, tmp_path: Path, words: tuple[str, ...]
) -> None:
    backbone = Path("cpm-ant-tiny")
    plain = curve(cli, tmp_path, backbone)
    assert len(plain) >= 4
    assert curve(cli, tmp_path, backbone, *words) == pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("offload", [False, True])
def test_a_run_is_the_same_by_fsdp2_in_a_group_of_one(
    cli: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offload: bool
) -> None:
    """Which the command makes of several processes alone."""

    def sharded(*given: Any) -> ShardedEngine:
        return ShardedEngine(*given[:3], checkpointing=given[3], offload=offload)

    backbone = Path("cpm-ant-tiny")
    plain = curve(cli, tmp_path, backbone)
    monkeypatch.setattr("cpm_tune.engine.offloaded.OffloadedEngine", sharded)
    assert curve(cli, tmp_path, backbone, "--offload") == pytest.approx(plain, rel=1e-3)


@only_cuda
@pytest.mark.skipif(trouble() is not None, reason="BMTrain is not installed, or cannot run here")
def test_a_run_is_the_same_by_bmtrain(cli: CLI, tmp_path: Path) -> None:
    backbone = Path("cpm-ant-tiny")
    plain = curve(cli, tmp_path, backbone)
    assert curve(cli, tmp_path, backbone, "--engine", "bmtrain") == pytest.approx(plain, rel=1e-3)
