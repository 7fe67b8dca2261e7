"""`estimate`: counted against formulas, measured against real runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import CLI, REPOSITORY, small_config
from delta_table import DELTAS

from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.bundled import NAMES
from cpm_tune.backbone.encdec.config import EncDecConfig
from cpm_tune.backbone.opening import random_backbone
from cpm_tune.backbone.protocol import BackboneConfig
from cpm_tune.backbone.quantize import quantize_int8
from cpm_tune.backbone.storage.shards import stored
from cpm_tune.delta.config import LoraConfig, NoneConfig
from cpm_tune.memory import meter
from cpm_tune.memory.estimate import Work, estimate
from cpm_tune.memory.meter import Meter, measure_step
from cpm_tune.planning.skeleton import make_skeleton
from cpm_tune.schema.spec import Execution

pytestmark = pytest.mark.usefixtures("one_thread")
MIB, GIB = 2**20, 2**30


def shown(said: str) -> dict[str, float]:
    """The sizes that are printed, in bytes."""
    found = re.findall(r"^(\w+) +([\d.]+) (MiB|GiB)", said, re.MULTILINE)
    return {name: float(n) * (GIB if unit == "GiB" else MIB) for name, n, unit in found}


def test_ten_billion_on_eight_gpus(cli: CLI) -> None:
    words = "--backbone cpm-ant-10b --delta lora --engine bmtrain --nproc 8"
    code, said, error = cli("estimate", *words.split())
    assert (code, error) == (0, "")
    found = shown(said)
    layer = 4 * 4096 * 4096 + 3 * 4096 * 10240 + 2 * 4096
    tables = (30720 + 32 * 32 + 32) * 4096 + (512 + 32**2) * 32 + 4096
    lora = 48 * 2 * 8 * (4096 + 4096)
    near = 0.006 * GIB
    assert found["weights"] == pytest.approx(2 * (48 * layer / 8 + tables), abs=near)
    assert found["gathered"] == pytest.approx(2 * layer, abs=near)
    for name, copies in (("delta", 1), ("gradients", 1), ("optimiser", 2)):
        assert found[name] == pytest.approx(copies * 4 * lora, rel=1e-3)
    kept = 2 * 4 * 256 * 4096 * 48  # with checkpointing the input of every layer, in bf16
    assert kept < found["activations"] < 1.5 * kept
    assert found["peak"] > found["weights"] + found["gathered"] + found["activations"]
    assert f"{lora:,} of {48 * layer + tables:,} values" in said


def test_levels_of_zero_and_the_other_ways_differ_as_they_should() -> None:
    shape = CPMAntConfig(dim_model=256, dim_ff=640, num_layers=24, num_heads=4, dim_head=64)
    skeleton = make_skeleton(shape, LoraConfig())

    def peak(**changes: object) -> int:
        how = Execution().model_copy(update=changes)
        nproc = 8 if changes else 1
        return estimate(Work(skeleton, nproc, 64, nproc=nproc, execution=how, gpu=True)).peak

    whole, zero_2 = peak(), peak(engine="bmtrain", zero=2)
    zero_3, shard, offload = peak(engine="bmtrain"), peak(shard=True), peak(offload=True)
    assert max(offload, zero_3) < shard < whole < zero_2  # ZeRO-2 has a part beside the whole


@pytest.mark.parametrize(
    ("name", "checkpointing", "family"),
    [
        ("lora", True, "ant"),
        ("prefix", False, "ant"),
        ("full", False, "ant"),
        ("lora", False, "encdec"),
        ("full", False, "encdec"),
    ],
)
def test_shallow_backbones_continued_give_what_the_deep_one_gives(
    name: str, checkpointing: bool, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: BackboneConfig = small_config(num_layers=13)
    if family == "encdec":
        sizes = {"vocab_size": 320, "d_model": 32, "d_ff": 64, "num_heads": 4, "d_kv": 8}
        config = EncDecConfig(num_layers=13, num_decoder_layers=13, **sizes)  # type: ignore[arg-type]
    skeleton = make_skeleton(config, DELTAS[name])
    how = 4, 64, 2, "fp32", checkpointing
    continued = measure_step(skeleton, *how)
    monkeypatch.setattr(meter, "_alike", lambda skeleton: False)
    measured = measure_step(skeleton, *how)
    for key, value in vars(measured).items():
        assert getattr(continued, key) == pytest.approx(value, rel=0.03)


def test_the_meter_counts_storages_once_while_they_live() -> None:
    with Meter() as meter:
        a = torch.zeros(256)
        b = a[:5] + 1
        view = a.view(16, 16)
        assert meter.now == 4 * 261
        del a
        assert meter.now == 4 * 261  # the view holds it
        del view
        assert meter.now == 4 * 5
        assert meter.peak == 4 * 261
        assert meter.reset() == meter.peak == b.nbytes


def test_int8_weights_take_what_is_said() -> None:
    model = quantize_int8(random_backbone(small_config(), 1, torch.float32))
    held = sum(part.nbytes for p in model.parameters() for part in stored(p))
    found = estimate(Work(make_skeleton(small_config(), NoneConfig()), 8, 64, quantize="int8"))
    assert found.weights == held
    assert (found.delta, found.gradients, found.optimizer) == (0, 0, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--backbone", "cpm-ant-10c"), "Did you mean 'cpm-ant-10b'"),
        (("--delta", "lora2"), "lora"),
        (("--shard",), "add --nproc N"),
        (("--length", "0"), "--length is 0, expected a whole number from 8"),
        (("--delta", "full", "--offload"), "full fine-tuning trains it"),
    ],
)
def test_mistakes(cli: CLI, words: tuple[str, ...], said: str) -> None:
    code, _, error = cli("estimate", *words)
    assert code == 2
    assert said in error


@pytest.mark.slow
@pytest.mark.parametrize("backbone", NAMES)
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured in /proc")
def test_a_dry_run_says_what_the_whole_process_takes(backbone: str, tmp_path: Path) -> None:
    words = [sys.executable, str(REPOSITORY / "tune.py"), "--task", "lcqmc", "--control", "none"]
    words += ["--backbone", backbone, "--no-shortcuts", "--out", str(tmp_path)]
    words += ["--set", "run.threads=1"]
    for setting in ("max_steps=10", "eval_every=10", "dev_rows=100"):
        words += ["--set", f"train.{setting}"]
    said = subprocess.run([*words, "--dry-run"], capture_output=True, text=True, check=True).stdout
    estimated = re.search(r"memory +about ([\d.]+) GiB", said)
    assert estimated
    subprocess.run(words, capture_output=True, check=True)
    (record,) = tmp_path.glob("*/run.json")
    measured = json.loads(record.read_text())["environment"]["peak_memory_bytes"]
    # It counts rows of the maximum length; an encoder-decoder has little else.
    room = 0.35 if backbone == "cpm-2-tiny" else 0.2
    assert float(estimated[1]) * GIB == pytest.approx(measured, rel=room)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured in /proc")
def test_real_runs_take_what_is_estimated() -> None:
    """The benchmark's measurement, of a backbone of 38 million parameters; 15% either way."""
    script = REPOSITORY / "benchmarks" / "estimate_memory.py"
    words = ["--layers", "2", "--setting", "LoRA, batch 8, length 128"]
    done = subprocess.run(
        [sys.executable, script, *words], capture_output=True, text=True, timeout=300, check=True
    )
    ratios = [float(found) for found in re.findall(r"([+-][\d.]+)%", done.stdout)]
    assert len(ratios) == 1
    assert all(abs(ratio) <= 15 for ratio in ratios), done.stdout
