"""Memory that gives out, and how much of it is said to be needed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import CLI, rows, write_jsonl

from cpm_tune.engine.device import is_out_of_memory, unless_out_of_memory
from cpm_tune.errors import UserError
from cpm_tune.planning.plan import Plan, Request, make_plan
from cpm_tune.runs.execute import execute
from cpm_tune.schema.record import RunRecord

pytestmark = pytest.mark.usefixtures("one_thread")
SAID = "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: 9 bytes"


@pytest.fixture
def planned(tmp_path: Path, small_backbone: Path) -> Callable[..., Plan]:
    folder = tmp_path / "data"
    folder.mkdir()
    for split, n, start in (("train", 480, 0), ("dev", 16, 500), ("test", 16, 600)):
        write_jsonl(folder / f"{split}.jsonl", rows(n, start))

    def make(**settings: Any) -> Plan:
        given = {"train.max_steps": 3, "train.eval_every": 3, "train.batch_size": 24}
        given |= {"train.lr": 0.01, "run.device": "cpu"}
        given |= {key.replace("_", ".", 1): value for key, value in settings.items()}
        return make_plan(
            Request("lcqmc", data=folder, backbone=str(small_backbone), settings=given)
        )

    return make


def giving_out(monkeypatch: pytest.MonkeyPatch, above: int) -> None:
    """Passes of more than so many examples find no memory; in training when their gradients have
    been added already."""
    import torch

    import cpm_tune.tuning.predict as predict
    from cpm_tune.engine.pytorch import TorchEngine

    scores, backward, large = predict.scored_targets, TorchEngine.backward, [False]

    def scored_targets(model: Any, batch: Any, rule: Any) -> Any:
        real = type(batch.ids) is torch.Tensor  # not where memory is estimated
        large[0] = real and len(batch.gold) > above
        if large[0] and not model.training:
            raise RuntimeError(SAID)
        return scores(model, batch, rule)

    def backward_then(engine: Any, loss: Any) -> None:
        backward(engine, loss)
        if large[0]:
            raise RuntimeError(SAID)

    monkeypatch.setattr(predict, "scored_targets", scored_targets)
    monkeypatch.setattr(TorchEngine, "backward", backward_then)


def outcome(plan: Plan, out: Path) -> tuple[RunRecord, list[dict[str, Any]]]:
    done = execute(plan, out)
    lines = (done.folder / "predictions.test.jsonl").read_text().splitlines()
    return done.record, [json.loads(line) for line in lines]


def test_smaller_passes_give_the_same_result(
    planned: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, lines = outcome(planned(), tmp_path / "a")
    giving_out(monkeypatch, above=7)
    again, found = outcome(planned(run_auto_batch=True), tmp_path / "b")
    assert again.run_id == record.run_id
    assert record.training is not None
    assert again.training is not None
    assert record.training.micro_tokens is None
    assert again.training.micro_tokens is not None
    for point, other in zip(record.training.curve, again.training.curve, strict=True):
        assert (other.loss, other.dev) == pytest.approx((point.loss, point.dev), abs=1e-4)
    for line, like in zip(lines, found, strict=True):
        assert like["prediction"] == line["prediction"]
        assert like["scores"] == pytest.approx(line["scores"], abs=1e-3)


def test_without_the_option_or_with_single_examples_the_run_ends_with_what_would_fit(
    planned: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    giving_out(monkeypatch, above=7)
    with pytest.raises(UserError) as error:
        execute(planned(), tmp_path / "a")
    said = re.fullmatch(
        r"out of memory on this machine \([\d.]+ GiB were free, each process needs about (\d+) "
        r"MiB\); --set run\.micro_tokens=(\d+) needs about (\d+) MiB, with the same result\.",
        str(error.value),
    )
    assert said is not None, error.value
    assert int(said[3]) <= 0.8 * int(said[1])
    giving_out(monkeypatch, above=0)
    with pytest.raises(UserError, match="out of memory"):
        execute(planned(run_auto_batch=True), tmp_path / "b")


def test_texts_are_written_in_smaller_batches(
    small_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cpm_tune.tuning.predict as predict

    settings = {"decode.max_new_tokens": 3, "run.device": "cpu", "run.auto_batch": True}
    request = Request(
        "math23k", delta="none", limit=5, backbone=str(small_backbone), settings=settings
    )
    _, lines = outcome(make_plan(request), tmp_path / "a")
    real, tried = predict.generate, []

    def generate(*given: Any, micro_tokens: int, **named: Any) -> Any:
        tried.append(micro_tokens)
        if micro_tokens > 3000:
            raise RuntimeError(SAID)
        return real(*given, micro_tokens=micro_tokens, **named)

    monkeypatch.setattr(predict, "generate", generate)
    assert outcome(make_plan(request), tmp_path / "b")[1] == lines
    assert tried[:3] == [8192, 4096, 2048]


LIMITED = """
import re, resource, sys
from pathlib import Path

import torch
import torch._dynamo, torch.utils.tensorboard  # before there is no room for them

import cpm_tune.memory.estimate
from cpm_tune.errors import UserError
from cpm_tune.planning.inputs import read_inputs
from cpm_tune.planning.plan import Request, make_plan
from cpm_tune.runs.execute import execute

torch.set_num_threads(1)
data, backbone, out = map(Path, sys.argv[1:])
settings = {"train.max_steps": 1, "train.batch_size": 480, "run.micro_tokens": 2**17}
settings |= {"train.lr": 0.01, "run.device": "cpu", "delta.prefix_token_num": 10_000}
plan = make_plan(Request("lcqmc", "prefix", str(backbone), data=data, settings=settings))
work = read_inputs(plan)
used = re.search(r"VmSize:\\s*(\\d+)", Path("/proc/self/status").read_text())
limit, before = 1024 * int(used[1]) + 512 * 2**20, resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
try:
    execute(plan, out, work)
except UserError as error:
    resource.setrlimit(resource.RLIMIT_AS, before)
    sys.exit(str(error))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="limits its address space")
def test_a_limit_of_the_system_is_met_with_a_sentence(
    planned: Callable[..., Plan], small_backbone: Path, tmp_path: Path
) -> None:
    """No allocator is replaced here: the process may take 512 MiB more, and one tensor is larger.

    It is a new process: one that has trained before keeps what it freed, as much as it needs.
    """
    planned()  # writes the data
    places = map(str, (tmp_path / "data", small_backbone, tmp_path / "out"))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *places], capture_output=True, text=True, check=False
    )
    assert done.stderr.startswith("out of memory on this machine"), done.stderr
    assert "--set run.micro_tokens=" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("could not create a primitive"),
        RuntimeError("std::bad_alloc"),
        MemoryError("std::bad_alloc"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("[enforce fail at gloo/transport/tcp/pair.cc] Cannot allocate memory"),
        RuntimeError("MKL FFT error: Intel oneMKL DFTI ERROR: Memory allocation failed"),
        RuntimeError(SAID),
    ],
)
def test_every_allocator_is_understood(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert unless_out_of_memory(lambda: raised(error), may_split=True) is None
    with pytest.raises(type(error)):
        unless_out_of_memory(lambda: raised(error), may_split=False)


def raised(error: Exception) -> int:
    raise error


def test_what_is_no_lack_of_memory_is_raised() -> None:
    for error in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError(SAID)):
        assert not is_out_of_memory(error)
        with pytest.raises(type(error)):
            unless_out_of_memory(lambda error=error: raised(error), may_split=True)


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="reads the size of the memory")
@pytest.mark.parametrize(
    "more", [("prefix", "delta.prefix_token_num"), ("adapter", "delta.bottleneck_dim")]
)
def test_a_delta_of_a_mistyped_size_is_refused_before_it_starts(
    cli: CLI, tmp_path: Path, more: tuple[str, str]
) -> None:
    delta, key = more
    words = ("--task", "lcqmc", "--delta", delta, "--set", f"{key}=100000000", "--out", tmp_path)
    code, _, error = cli(*words, "--set", "run.device=cpu")
    assert code == 2
    assert re.search(r"this run needs about [\d.]+ GiB of memory, more than the .* machine", error)
    assert not list(tmp_path.glob("*.partial"))


def test_what_does_not_go_with_auto_batch(cli: CLI) -> None:
    code, _, said = cli("--task", "lcqmc", "--auto-batch", "--offload")
    assert code == 2
    assert "run.auto_batch cannot be combined" in said
