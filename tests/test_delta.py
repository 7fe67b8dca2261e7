"""Deltas: what is trained, refused and saved, and that OpenDelta stays in its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import small_config

from cpm_tune.backbone.checkpoint import load_weights, open_folder, random_backbone
from cpm_tune.backbone.config import PRESETS
from cpm_tune.backbone.model import CPMAnt
from cpm_tune.delta.config import LoraConfig, NoneConfig, parse_config
from cpm_tune.delta.insert import Delta, frozen_checksum, insert, load_delta
from cpm_tune.errors import UserError
from cpm_tune.registry import load_preset

SHA = "0" * 64
LORA = LoraConfig()


def backbone(dtype: torch.dtype = torch.float32, **changes: object) -> CPMAnt:
    return random_backbone(small_config(**changes), 3, dtype).eval()


def forward(model: CPMAnt) -> torch.Tensor:
    ids = torch.arange(20, 52).view(2, 16)
    return model(ids, torch.full_like(ids, 2))


def perturb(delta: Delta) -> None:
    with torch.no_grad():
        for parameter in delta.parameters.values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


def test_lora_trains_exactly_its_own_parameters() -> None:
    model = backbone()
    before = {name for name, _ in model.named_parameters()}
    delta = insert(model, LORA, SHA, seed=1)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(delta.parameters)
    assert not before & set(delta.parameters)
    # two layers, two modules, rank 8 on 64 -> 64
    assert delta.n_trainable == 2 * 2 * 8 * (64 + 64)
    perturb(delta)
    forward(model).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name in delta.parameters)


def test_lora_changes_nothing_at_first_and_something_later() -> None:
    model = backbone().requires_grad_(False)  # as inserting leaves it: the same kernels run
    plain = forward(model)
    delta = insert(model, LORA, SHA, seed=1)
    assert torch.equal(forward(model), plain)
    perturb(delta)
    assert not torch.allclose(forward(model), plain, atol=1e-3)


def test_lora_adds_scaled_b_a_x_to_the_output_of_each_projection() -> None:
    model = backbone()
    delta = insert(model, LoraConfig(lora_r=4, lora_alpha=12), SHA, seed=1)
    perturb(delta)
    layer = model.encoder.layers[0].self_att.self_attention.project_q
    x = torch.randn(3, 64)
    a, b = layer.lora.lora_A, layer.lora.lora_B
    expected = x @ layer.weight.T + 12 / 4 * (x @ a.T) @ b.T
    assert torch.allclose(layer(x), expected, atol=1e-5)


def test_the_published_setting_trains_6_3_million_values_on_the_10b_shape() -> None:
    preset = load_preset("lora")
    with torch.device("meta"):
        model = CPMAnt(PRESETS["cpm-ant-10b"])
        delta = insert(model, parse_config(preset, "lora"), SHA, seed=0)
    assert delta.n_trainable == preset["about"]["trainable_on_10b"] == 6_291_456


def test_no_delta_trains_nothing() -> None:
    model = backbone()
    delta = insert(model, NoneConfig(), SHA, seed=1)
    assert delta.n_trainable == 0
    assert not any(p.requires_grad for p in model.parameters())


def test_the_seed_decides_the_initial_values_and_leaves_the_global_state_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = (insert(backbone(), LORA, SHA, seed=s).state() for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_under_bf16_the_backbone_is_bf16_and_the_delta_fp32() -> None:
    model = backbone(torch.bfloat16)
    delta = insert(model, LORA, SHA, seed=1)
    assert {p.dtype for p in delta.parameters.values()} == {torch.float32}
    frozen = {p.dtype for n, p in model.named_parameters() if n not in delta.parameters}
    assert frozen == {torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        forward(model).float().square().sum().backward()
    assert all(p.grad is not None for p in delta.parameters.values())


def test_lora_goes_into_a_backbone_with_absent_sub_blocks() -> None:
    model = backbone(mask_modules=((True, False), (False, True)))
    delta = insert(model, LORA, SHA, seed=1)
    assert {name.split(".")[2] for name in delta.parameters} == {"1"}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"modified_modules": ("project_x",)}, "no module of the backbone is named 'project_x'"),
        ({"modified_modules": ("project_q", "oject_v")}, "named 'oject_v'"),
        ({"modified_modules": ("encoder",)}, "encoder is a Encoder"),
        ({"exclude_modules": ("encoder",)}, "leaves no module"),
        ({"exclude_modules": ("decoder",)}, "no module's name starts with 'decoder'"),
    ],
)
def test_a_delta_that_would_not_be_in_effect_is_an_error(
    config: dict[str, tuple[str, ...]], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        insert(backbone(), LoraConfig(**config), SHA, seed=1)  # type: ignore[arg-type]


def test_excluded_modules_are_left_alone() -> None:
    config = LoraConfig(exclude_modules=("encoder.layers.0",))
    delta = insert(backbone(), config, SHA, seed=1)
    assert {name.split(".")[2] for name in delta.parameters} == {"1"}


def test_a_frozen_parameter_that_moves_is_noticed() -> None:
    model = backbone()
    delta = insert(model, LORA, SHA, seed=1)
    before = frozen_checksum(model, delta)
    perturb(delta)
    assert frozen_checksum(model, delta) == before
    with torch.no_grad():
        weight = model.encoder.layers[1].ffn.ffn.w_out.weight
        weight[3, 5] = torch.nextafter(weight[3, 5], torch.tensor(9.0))
    assert frozen_checksum(model, delta) != before


def test_a_saved_delta_gives_the_same_output_in_a_new_backbone(
    tmp_path: Path, small_backbone: Path
) -> None:
    folder = open_folder(small_backbone)
    model = load_weights(folder, torch.float32).eval()
    delta = insert(model, LORA, folder.sha256(), seed=1)
    perturb(delta)
    expected = forward(model)
    delta.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["delta.json", "delta.safetensors"]
    values = delta.n_trainable * 4
    assert values < (tmp_path / "delta.safetensors").stat().st_size < values + 4096

    fresh = load_weights(folder, torch.float32).eval()
    loaded = load_delta(tmp_path, fresh, folder.sha256())
    assert torch.equal(forward(fresh), expected)
    assert loaded.config == LORA


def test_a_delta_of_another_backbone_is_refused(tmp_path: Path) -> None:
    delta = insert(backbone(), LORA, "1" * 64, seed=1)
    delta.save(tmp_path)
    with pytest.raises(UserError, match="trained on another backbone"):
        load_delta(tmp_path, backbone(), "2" * 64)


@pytest.mark.parametrize("damage", ["delta.json", "delta.safetensors"])
def test_a_damaged_delta_is_refused(tmp_path: Path, damage: str) -> None:
    insert(backbone(), LORA, SHA, seed=1).save(tmp_path)
    path = tmp_path / damage
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UserError, match="no readable delta"):
        load_delta(tmp_path, backbone(), SHA)


def test_a_delta_of_another_rank_does_not_load() -> None:
    small = insert(backbone(), LoraConfig(lora_r=4), SHA, seed=1).state()
    with pytest.raises(UserError, match="does not fit"):
        insert(backbone(), LORA, SHA, seed=1).load_state(small)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"delta_type": "lorra"}, "Did you mean 'lora'"),
        ({}, "delta_type is None"),
        ({"delta_type": "lora", "lora_rank": 4}, "'lora_rank' is not a setting of lora"),
        ({"delta_type": "lora", "lora_r": 0}, "lora_r is 0"),
        ({"delta_type": "lora", "lora_dropout": 1.0}, "lora_dropout is 1.0"),
        ({"delta_type": "lora", "modified_modules": []}, "modified_modules is"),
    ],
)
def test_a_wrong_delta_config_is_named(values: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_config(values, "here")


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_importing_the_package_imports_neither_torch_nor_opendelta_nor_transformers() -> None:
    code = "import sys, cpm_tune.cli, cpm_tune.registry; print(sorted({'torch', 'opendelta', "
    assert (
        run_python(code + "'transformers', 'datasets', 'sklearn'} & set(sys.modules)))") == "[]\n"
    )


def test_importing_opendelta_opens_nothing_says_nothing_and_leaves_the_path_alone() -> None:
    code = """
import socket, sys
def refuse(*a, **k): raise RuntimeError('network')
socket.socket.connect = socket.create_connection = refuse
path = list(sys.path)
from cpm_tune.delta.opendelta_import import opendelta
opendelta()
assert sys.path == path
assert not {'web', 'turtle', 'tkinter', 'DeltaCenter'} & set(sys.modules)
"""
    assert run_python(code) == ""


def test_a_missing_opendelta_is_one_sentence_with_the_command() -> None:
    code = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == 'opendelta' else find(name, *a)
from cpm_tune.delta.opendelta_import import opendelta
from cpm_tune.errors import UserError
try:
    opendelta()
except UserError as error:
    print(error)
"""
    assert run_python(code).strip().endswith("run: pip install --no-deps opendelta==0.3.2")
