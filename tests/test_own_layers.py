"""Without OpenDelta our own layers are the way in: the same bits, or one sentence with its install
command. An import blocker makes the situation of a plain `pip install cpm-tune`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from causal_folders import make_folder
from conftest import CLI
from delta_table import DELTAS, DTYPES, SHA, backbone, forward, perturb
from same_runs import in_one_process
from torch import Tensor

from cpm_tune.backbone.families import open_folder
from cpm_tune.backbone.quantize import quantize_int8
from cpm_tune.delta import own
from cpm_tune.delta.config import (
    AdapterConfig,
    DeltaConfig,
    LoraConfig,
    NonLinearity,
    parse_config,
)
from cpm_tune.delta.insert import insert, load_delta
from cpm_tune.errors import UserError
from cpm_tune.task.registry import load_preset, preset_files

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIGS: dict[str, DeltaConfig] = {
    **{f"preset {name}": parse_config(load_preset(name), name) for name in preset_files()},
    **DELTAS,
    "lora, dropout": LoraConfig(lora_dropout=0.3),
    **{
        f"adapter, {name}": AdapterConfig(bottleneck_dim=4, non_linearity=name)
        for name in get_args(NonLinearity)
    },
}
OWN = [name for name, config in CONFIGS.items() if isinstance(config, own.KINDS)]
OTHERS = sorted(
    {c.delta_type for c in CONFIGS.values()}
    - {CONFIGS[name].delta_type for name in OWN}
    - {"none", "full"}
)


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A call after which OpenDelta cannot be imported: None is what importlib takes for absent."""

    def block() -> None:
        monkeypatch.setitem(sys.modules, "opendelta", None)

    return block


def trained(config: DeltaConfig, dtype: torch.dtype, folder: Path) -> list[Any]:
    """First values, output, gradients after two steps, and saved files of a delta."""
    model = backbone(dtype).train()
    delta = insert(model, config, SHA, seed=1)
    results: list[Any] = [delta.state()]
    perturb(delta)
    optimizer = torch.optim.AdamW(delta.parameters.values(), lr=1e-3)
    torch.manual_seed(0)
    for _ in range(2):
        optimizer.zero_grad()
        output = forward(model, config, dtype)
        (output.float() ** 3).mean().backward()
        results += [output.detach(), {k: p.grad.clone() for k, p in delta.parameters.items()}]
        optimizer.step()
    delta.save(folder)
    results += [path.read_bytes() for path in sorted(folder.iterdir())]
    delta.remove()
    return [*results, {key: sorted(vars(module)) for key, module in model.named_modules()}]


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    return bool(one == other)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("name", OWN)
def test_values_gradients_and_files_equal_opendeltas(
    name: str, dtype: torch.dtype, absent: Any, tmp_path: Path
) -> None:
    theirs = trained(CONFIGS[name], dtype, tmp_path / "theirs")
    absent()
    ours = trained(CONFIGS[name], dtype, tmp_path / "ours")
    assert len(ours) == len(theirs) > 5
    assert all(equal(*pair) for pair in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "cohere"])
@pytest.mark.parametrize("preset", ["lora", "adapter", "bitfit", "prefix", "soft_prompt"])
def test_causal_models_get_the_same_layers_and_outputs(
    kind: str, preset: str, absent: Any, tmp_path: Path
) -> None:
    config = parse_config(load_preset(preset), preset)
    folder = open_folder(make_folder(tmp_path / kind, kind))
    results = []
    for way in ("opendelta", "own"):
        if way == "own":
            absent()
        model = folder.open(torch.float32).eval()
        delta = insert(model, config, SHA, seed=1)
        perturb(delta)
        with torch.no_grad():
            output = model.model(torch.arange(12)[None]).logits
        results.append((delta.state(), output))
        delta.remove()
    assert all(equal(*pair) for pair in zip(*results, strict=True))


@pytest.mark.parametrize("name", ["lora", "adapter"])
def test_eight_bit_weights_get_the_same_outputs(name: str, absent: Any) -> None:
    outputs = []
    for way in ("opendelta", "own"):
        if way == "own":
            absent()
        model = backbone()
        quantize_int8(model)
        perturb(insert(model, CONFIGS[name], SHA, seed=1))
        with torch.no_grad():
            outputs.append(forward(model, CONFIGS[name]))
    assert torch.equal(*outputs)


def test_a_delta_saved_with_opendelta_loads_without_it(absent: Any, tmp_path: Path) -> None:
    saved = insert(backbone(), CONFIGS["lora"], SHA, seed=1)
    perturb(saved)
    saved.save(tmp_path)
    absent()
    assert equal(load_delta(tmp_path, backbone(), SHA).state(), saved.state())


@pytest.mark.parametrize("kind", OTHERS)
def test_other_deltas_are_one_sentence_with_the_install_command(kind: str, absent: Any) -> None:
    model, config = backbone(), DELTAS[kind]
    values = {key: value.clone() for key, value in model.state_dict().items()}
    absent()
    with pytest.raises(UserError, match=r"run: pip install --no-deps opendelta==0\.3\.2$"):
        insert(model, config, SHA, seed=1)
    assert equal(model.state_dict(), values)
    insert(model, CONFIGS["lora"], SHA, seed=1)


def test_a_package_that_does_not_import_counts_as_absent(
    absent: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "opendelta").mkdir()
    (tmp_path / "opendelta" / "__init__.py").write_text("raise ImportError('too old')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "opendelta"]:
        monkeypatch.delitem(sys.modules, name)
    insert(backbone(), CONFIGS["lora"], SHA, seed=1)
    with pytest.raises(UserError, match=r"does not import here \(too old\)"):
        insert(backbone(), DELTAS["compacter"], SHA, seed=1)


def test_whole_runs_and_a_sweep_leave_the_same_bytes(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['opendelta'] = None\n")
    few = ["--data", data, "--set", "train.max_steps=2", "--control", "none"]
    one = ["--task", "lcqmc", "--delta", "lora", "--backbone", small_backbone, *few]
    code, _, error = cli(*one, "--out", tmp_path / "theirs")
    assert code == 0, error
    sweep = ["bench", "--tasks", "lcqmc", "--deltas", "bitfit", "--jobs", 1, *few]
    sweep += ["--backbones", small_backbone, "--out", tmp_path / "bench"]
    lines = [[*one, "--out", tmp_path / "ours"], sweep, ["doctor"]]
    text = in_one_process(lines, tmp_path)
    theirs, ours = (next((tmp_path / name).glob("lcqmc.*")) for name in ("theirs", "ours"))
    assert theirs.name == ours.name
    for name in ("delta.safetensors", "delta.json", "predictions.test.jsonl"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    assert "not installed" in text
