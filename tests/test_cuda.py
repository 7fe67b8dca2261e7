"""What runs on a CUDA device, as far as a CPU shows it: which device is asked for what."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cuda_double
import pytest
import torch

from cpm_tune.backbone.ant import streamed
from cpm_tune.bench.processes import Processes
from cpm_tune.bench.trials import Report
from cpm_tune.bench.worker import Worker
from cpm_tune.common import allocator, environment
from cpm_tune.common.allocator import set_allocator
from cpm_tune.engine import pytorch
from cpm_tune.engine.device import choose_device, unless_out_of_memory
from cpm_tune.engine.pytorch import TorchEngine, together
from cpm_tune.engine.rank import rank_info
from cpm_tune.errors import ProcessLostError, UserError
from cpm_tune.memory.out_of_memory import free_memory

SLURM = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "3"}
PLACE = {"MASTER_ADDR": "a", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    ("wanted", "local_rank", "count", "expected"),
    [
        ("cuda", -1, 2, "cuda:1"),  # the current one
        ("auto", -1, 2, "cuda:1"),
        ("cuda:0", -1, 2, "cuda:0"),
        ("cuda:1", -1, 2, "cuda:1"),
        ("cuda", 3, 4, "cuda:3"),
        ("cpu", 3, 4, "cpu"),
        ("auto", -1, 0, "cpu"),
    ],
)
def test_the_chosen_device_is_the_current_one(
    monkeypatch: pytest.MonkeyPatch, wanted: str, local_rank: int, count: int, expected: str
) -> None:
    cuda = cuda_double.install(monkeypatch, count)
    cuda.current = 1
    device = choose_device(wanted, local_rank)
    assert str(device) == expected
    if device.type == "cuda":
        assert cuda.current == device.index
    else:
        assert "set_device" not in cuda.names()


@pytest.mark.parametrize(("wanted", "local_rank"), [("cuda:2", -1), ("cuda", 2), ("cuda:0", 0)])
def test_a_device_that_is_not_there_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, wanted: str, local_rank: int
) -> None:
    cuda_double.install(monkeypatch, 2)
    with pytest.raises(UserError, match=r"CUDA devices|each process has its own"):
        choose_device(wanted, local_rank)


def test_a_task_of_slurm_that_sees_one_device_has_it_for_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = rank_info(SLURM | PLACE)
    cuda_double.install(monkeypatch, 1)
    assert choose_device("cuda", 3, own_devices=process.slurm).index == 0
    with pytest.raises(UserError, match="4 processes on this machine, but torch sees 1"):
        choose_device("cuda", 3)
    cuda_double.install(monkeypatch, 4)
    assert choose_device("cuda", 3, own_devices=process.slurm).index == 3


def test_random_numbers_are_those_of_the_engines_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = cuda_double.install(monkeypatch, 2)
    TorchEngine(torch.device("cuda", 1), "fp32").seed(1, 2)
    assert cuda.calls[-1] == ("manual_seed", 1)
    assert cuda.current == 0


class Event:
    def __init__(self) -> None:
        self.recorded: list[Any] = []

    def record(self, stream: Any = None) -> None:
        self.recorded.append(stream)

    def synchronize(self) -> None: ...


def test_layers_that_come_and_go_wait_for_the_streams_of_their_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second GPU's, also if the first is the current one."""
    log: list[tuple[str, Any]] = []
    device, place = torch.device("cuda", 1), 0

    def current_stream(of: Any = None) -> Any:
        wait = log.append
        return SimpleNamespace(of=of, wait_event=lambda event: wait(("waits", of)))

    monkeypatch.setattr(torch.cuda, "current_stream", current_stream)
    buffer = SimpleNamespace(
        memory=SimpleNamespace(device=device),
        cuda=False,
        copied=Event(),
        free=Event(),
        loading=None,
    )
    stream = streamed._Stream(None, torch.float32, [buffer, buffer], [{}])  # type: ignore[arg-type,list-item]
    stream._copies = object()  # type: ignore[assignment]
    monkeypatch.setattr(stream, "_load", lambda place, buffer: None)
    stream._ready(place)
    assert log == [("waits", device)]
    stream._done(place)
    assert [stream.of for stream in buffer.free.recorded] == [device]


def test_a_run_on_a_cpu_leaves_the_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = cuda_double.install(monkeypatch, 1)
    for device in (None, torch.device("cpu")):
        environment.reset_peak_memory(device)
        assert environment.peak_memory_bytes(device) > 10**6  # resident
        assert environment.gpu(device) == {}
    cuda.initialised = False
    unless_out_of_memory(out_of_memory, may_split=True)
    environment.reset_peak_memory(torch.device("cuda", 0))  # before anything is there
    assert cuda.calls == []


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def test_memory_and_name_are_those_of_the_runs_own_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cuda = cuda_double.install(monkeypatch, 2)
    driver = tmp_path / "version"
    driver.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release")
    monkeypatch.setattr(environment, "_DRIVER", driver)
    device = torch.device("cuda", 1)
    environment.reset_peak_memory(device)
    assert environment.peak_memory_bytes(device) == 12345
    about = environment.gpu(device)
    assert about["name"] == "A GPU"
    assert about["capability"] == "9.0"
    assert about["driver"] == "580.65.06"
    assert {given for _, given in cuda.calls} == {device}


def test_memory_that_torch_keeps_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_double.install(monkeypatch, 1)
    engine = SimpleNamespace(device=torch.device("cuda", 0))
    assert free_memory(engine) == 1000 + 700 - 300  # type: ignore[arg-type]


def test_what_is_kept_of_freed_memory_is_given_back_before_less_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = cuda_double.install(monkeypatch, 1)
    assert unless_out_of_memory(out_of_memory, may_split=True) is None
    assert cuda.names() == ["empty_cache"]
    with pytest.raises(torch.OutOfMemoryError):
        unless_out_of_memory(out_of_memory, may_split=False)


def test_an_error_of_nccl_is_memory_or_a_lost_process() -> None:
    with pytest.raises(RuntimeError, match="out of memory"), together():
        raise RuntimeError("NCCL error: Cuda failure 2 'out of memory'")
    with pytest.raises(ProcessLostError), together():
        raise RuntimeError("NCCL error: remote process exited or there was a network error")


@pytest.mark.parametrize("given", [None, "5"])
def test_sums_on_gpus_end_sooner_than_what_may_wait_for_texts(
    monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    """Objects and counts go by a group of gloo alone."""
    asked: dict[str, Any] = {}
    cuda_double.install(monkeypatch, 2)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    if given is not None:
        monkeypatch.setenv("CPM_TUNE_NCCL_MINUTES", given)

    def init(backend: str, **named: Any) -> None:
        asked[backend] = named["timeout"]

    def group(backend: str, timeout: Any) -> str:
        asked[backend] = timeout
        return "waits long"

    monkeypatch.setattr(pytorch, "_waiting", None)
    monkeypatch.setattr(pytorch.atexit, "register", lambda function: None)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.distributed, "init_process_group", init)
    monkeypatch.setattr(torch.distributed, "new_group", group)
    process = pytorch.join_group("cuda")
    minutes = {name: timeout.total_seconds() / 60 for name, timeout in asked.items()}
    assert minutes == {"cpu:gloo,cuda:nccl": float(given or 30), "gloo": 360}

    used: list[Any] = []
    for name in ("all_reduce", "gather_object", "broadcast_object_list"):
        monkeypatch.setattr(torch.distributed, name, lambda *_, group: used.append(group))
    engine = TorchEngine(torch.device("cpu"), "fp32", process)
    engine.reduce_sums([1.0])
    engine.gather([1])
    engine.broadcast(1)
    assert used == ["waits long"] * 3


@pytest.mark.parametrize("given", ["", "0", "-1", "1.5", "x", "100000"])
def test_minutes_that_are_none_are_a_mistake(given: str) -> None:
    with pytest.raises(UserError, match="expected whole minutes from 1 to 10000"):
        pytorch.nccl_timeout({"CPM_TUNE_NCCL_MINUTES": given})


def test_a_norm_that_cannot_be_read_is_a_lost_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum of NCCL's fails when its result is read."""

    class Lost:
        def __float__(self) -> float:
            raise RuntimeError("NCCL communicator was aborted")

    engine = TorchEngine(torch.device("cpu"), "fp32")
    engine.world_size = 2
    monkeypatch.setattr("cpm_tune.engine.pytorch.sum_gradients", lambda parameters: None)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *given, **named: Lost())
    parameter = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(ProcessLostError):
        engine.clip(torch.optim.SGD([parameter]), [parameter], 1.0)


@pytest.mark.parametrize(
    ("torch_version", "release", "given", "expected"),
    [
        ("2.13.0+cu130", "6.8.0", {}, {"PYTORCH_ALLOC_CONF": "expandable_segments:True,pinned"}),
        ("2.10.1", "6.8.0", {}, {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}),
        ("2.8.0", "6.8.0", {}, {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}),
        ("2.13.0", "5.15.1-microsoft-standard-WSL2", {}, {}),
        ("2.13.0", "6.8.0", {"PYTORCH_CUDA_ALLOC_CONF": "x"}, {"PYTORCH_CUDA_ALLOC_CONF": "x"}),
        ("2.13.0", "6.8.0", {"PYTORCH_ALLOC_CONF": ""}, {"PYTORCH_ALLOC_CONF": ""}),
    ],
)
def test_the_allocators_settings(
    monkeypatch: pytest.MonkeyPatch,
    torch_version: str,
    release: str,
    given: dict[str, str],
    expected: dict[str, str],
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: torch_version)
    monkeypatch.setattr(allocator.platform, "release", lambda: release)
    monkeypatch.setattr(allocator.sys, "platform", "linux")
    monkeypatch.delitem(sys.modules, "torch")
    set_allocator(given)
    assert {name: value.partition("_max")[0] for name, value in given.items()} == expected


def test_settings_come_too_late_once_torch_is_imported() -> None:
    given: dict[str, str] = {}
    set_allocator(given)
    assert given == {}


@pytest.mark.skipif(sys.platform != "linux", reason="set on Linux")
@pytest.mark.parametrize("first", ["import cpm_tune; cpm_tune.load_run", ""])
def test_torch_accepts_the_settings_before_it_is_imported(first: str) -> None:
    program = f"""
{first or "import os; from cpm_tune.common.allocator import set_allocator as s; s(os.environ)"}
import os, torch
print(os.environ.get("PYTORCH_ALLOC_CONF", os.environ.get("PYTORCH_CUDA_ALLOC_CONF")))
"""
    plain = {k: v for k, v in os.environ.items() if not k.endswith("ALLOC_CONF")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        **{"capture_output": True, "text": True, "check": True, "env": plain},
    )
    assert done.stdout.startswith("expandable_segments:True"), version("torch")
    assert done.stderr == ""


def test_a_worker_whose_gpu_refused_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its process could compute nothing else."""
    errors = {
        torch.AcceleratorError("CUDA error: device-side assert triggered"): True,
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm"): True,
        torch.AcceleratorError("CUDA error: out of memory"): False,
        RuntimeError("shapes cannot be multiplied"): False,
        UserError("a CUDA error is no mistake"): False,
    }
    worker = Worker(tmp_path, 1)
    for error, last in errors.items():

        def fails(*given: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("cpm_tune.bench.worker._run", fails)
        report = worker.run(SimpleNamespace(nproc=1, name="one"))  # type: ignore[arg-type]
        assert (report.status, report.last) == ("failed", last), error


def test_the_process_of_the_last_report_is_let_go(tmp_path: Path) -> None:
    ours, theirs = multiprocessing.Pipe()
    executor = Processes(tmp_path, 2)
    executor._processes[1] = (SimpleNamespace(sentinel=ours, join=lambda timeout: None), ours)
    executor._trials[1] = SimpleNamespace()  # type: ignore[assignment]
    theirs.send(Report("failed", last=True))
    assert executor.wait(5)[1].last
    assert not executor._processes
    assert ours.closed
