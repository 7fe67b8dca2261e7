"""Deltas: what is refused, and that OpenDelta stays in its place. What each promises: the table in
test_delta_guarantees.py; what each computes: test_delta_methods.py."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from delta_table import SHA, backbone, perturb

from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.delta.config import LoraConfig, NoneConfig, parse_config
from cpm_tune.delta.insert import frozen_checksum, insert, load_delta
from cpm_tune.delta.merge import merge
from cpm_tune.errors import UserError
from cpm_tune.planning.settings import parse_settings
from cpm_tune.task.registry import load_preset

LORA = LoraConfig()


def test_no_delta_trains_nothing() -> None:
    model = backbone()
    delta = insert(model, NoneConfig(), SHA, seed=1)
    assert delta.n_trainable == 0
    assert not any(p.requires_grad for p in model.parameters())


PAIR = ("self_attention", "self_attention")
WRONG = [
    ("lora", {"modified_modules": ["project_x"]}, "no module of the backbone is named 'project_x'"),
    ("lora", {"modified_modules": ["project_q", "oject_v"]}, "named 'oject_v'"),
    ("lora", {"modified_modules": ["encoder"]}, "encoder is a Encoder"),
    ("lora", {"exclude_modules": ["encoder"]}, "leaves no module"),
    ("lora", {"exclude_modules": ["decoder"]}, "no module's name starts with 'decoder'"),
    ("adapter", {"modified_modules": ["attn"]}, "no module of the backbone is named 'attn'"),
    ("adapter", {"modified_modules": ["layers"]}, "is a ModuleList"),
    ("adapter", {"modified_modules": ["position_bias"]}, "is a PositionBias"),
    ("adapter", {"modified_modules": ["ffn"]}, "longer ending such as ffn.ffn"),
    ("compacter", {"modified_modules": ["self_attention", "attention_out"]}, "names both"),
    ("bitfit", {"modified_modules": ["self_att"]}, "which bitfit cannot modify"),
    ("prefix", {"modified_modules": ["project_k"]}, "it modifies self_attention"),
    ("low_rank_adapter", {"reduction_factor": 128}, "low_rank_rank is 1, but the bottleneck"),
    ("low_rank_adapter", {"low_rank_rank": 3}, "64 / reduction_factor 32 = 2"),
    ("compacter", {"reduction_factor": 32}, "is 128, which does not divide the width 64"),
    ("parallel_adapter", {"modified_modules": ["w_out", "w_in"]}, "done before .*w_out begins"),
    ("parallel_adapter", {"modified_modules": ["w_in", "w_in"]}, "is 64 wide, .* 128"),
    ("parallel_adapter", {"modified_modules": ["ffn", "ffn"]}, "'ffn' names both"),
    ("parallel_adapter", {"modified_modules": ["project_q", "w_out"]}, "are not in the same"),
    ("parallel_adapter", {"modified_modules": [*PAIR, *PAIR]}, "names a pair twice"),
    ("lora", {"lora_r": 4096}, "delta.lora_r is 4096, but .*project_q is 64 x 64: .* rank 64"),
    ("soft_prompt", {"token_init": "prompt", "init_prompt_type": 4}, "this backbone has 4 prompts"),
    ("soft_prompt", {"token_init": "text", "init_text": "好"}, "needs the backbone's tokenizer"),
]


@pytest.mark.parametrize(("kind", "changes", "said"), WRONG)
def test_a_delta_that_would_not_be_in_effect_is_an_error_and_leaves_no_trace(
    kind: str, changes: dict[str, object], said: str
) -> None:
    model = backbone()
    before = [(name, set(vars(module))) for name, module in model.named_modules()]
    config = parse_config({"delta_type": kind, **changes}, "here")
    with pytest.raises(UserError, match=said):
        insert(model, config, SHA, seed=1)
    assert [(name, set(vars(module))) for name, module in model.named_modules()] == before
    assert all(parameter.requires_grad for parameter in model.parameters())


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


@pytest.mark.parametrize("damage", ["delta.json", "delta.safetensors"])
def test_a_damaged_delta_is_refused(tmp_path: Path, damage: str) -> None:
    insert(backbone(), LORA, SHA, seed=1).save(tmp_path)
    path = tmp_path / damage
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UserError, match=f"{damage}: cannot be read as"):
        load_delta(tmp_path, backbone(), SHA)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("[]", "delta.json: is not an object; expected an object with backbone_sha256, config"),
        ('{"backbone_sha256": "x"}', "delta.json: has no 'config'"),
        ('{"backbone_sha256": "x", "config": [1]}', "expected a text and an object"),
        ('{"backbone_sha256": 5, "config": {}}', "expected a text and an object"),
    ],
)
def test_a_delta_whose_config_is_none(tmp_path: Path, said: str, expected: str) -> None:
    insert(backbone(), LORA, SHA, seed=1).save(tmp_path)
    (tmp_path / "delta.json").write_text(said)
    with pytest.raises(UserError, match=expected):
        load_delta(tmp_path, backbone(), SHA)


@pytest.mark.parametrize(("value", "expected"), [(math.nan, "NaN or inf"), (1, "torch.int64")])
def test_a_delta_of_no_numbers(tmp_path: Path, value: float, expected: str) -> None:
    state = insert(backbone(), LORA, SHA, seed=1).state()
    odd = {name: torch.full(tensor.shape, value) for name, tensor in state.items()}
    insert(backbone(), LORA, SHA, seed=1).save(tmp_path, odd)
    with pytest.raises(UserError, match=expected):
        load_delta(tmp_path, backbone(), SHA)


def test_a_delta_of_another_rank_does_not_load_and_leaves_the_backbone_free(tmp_path: Path) -> None:
    values = insert(backbone(), LoraConfig(lora_r=4), SHA, seed=1).state()
    model = backbone()
    with pytest.raises(UserError, match="does not fit"):
        insert(model, LoraConfig(lora_r=8), SHA, 0, values=values)
    insert(model, LORA, SHA, seed=1)


def test_a_config_that_was_changed_beside_its_values_is_refused(tmp_path: Path) -> None:
    insert(backbone(), LORA, SHA, seed=1).save(tmp_path)
    said = (tmp_path / "delta.json").read_text(encoding="utf-8")
    changed = said.replace('"lora_alpha": 16', '"lora_alpha": 1600')
    assert changed != said
    (tmp_path / "delta.json").write_text(changed, "utf-8")
    with pytest.raises(UserError, match=r"delta\.json: not what .* the file was changed"):
        load_delta(tmp_path, backbone(), SHA)


def test_an_insertion_that_trains_nothing_or_replaces_what_is_frozen_is_undone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import cpm_tune.delta.models

    monkeypatch.setattr(cpm_tune.delta.models, "insert_model", lambda model, config: lambda: None)
    model = backbone()
    with pytest.raises(UserError, match="left nothing to train; check modified_modules"):
        insert(model, LORA, SHA, seed=1)

    def replace(model: CPMAnt, config: object) -> Callable[[], None]:
        model.encoder.output_layernorm = torch.nn.Identity()  # type: ignore[assignment]
        return lambda: None

    monkeypatch.setattr(cpm_tune.delta.models, "insert_model", replace)
    with pytest.raises(UserError, match=r"lora replaced the frozen .*output_layernorm"):
        insert(model, LORA, SHA, seed=1)
    assert "_carries_delta" not in vars(model)


def test_a_delta_that_was_taken_out_stays_out() -> None:
    model = backbone()
    first = insert(model, LORA, SHA, seed=1)
    first.remove()
    second = insert(model, LORA, SHA, seed=2)
    names = set(dict(model.named_parameters()))
    first.remove()
    assert set(dict(model.named_parameters())) == names
    assert second.parameters
    with pytest.raises(UserError, match="was removed; insert it again"):
        merge(first)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"delta_type": "lorra"}, "Did you mean 'lora'"),
        ({}, "no delta_type; give one of none, full, lora"),
        ({"delta_type": "lora", "modified_modules": ["w_0", "w_0"]}, "names w_0 twice"),
        ({"delta_type": "compacter", "phm_init_range": 0.5}, "no effect unless hypercomplex_non"),
        ({"delta_type": "soft_prompt", "init_range": 3}, "no effect unless token_init is random"),
        ({"delta_type": "soft_prompt", "init_prompt_type": 9}, "unless token_init is prompt"),
        ({"delta_type": "lora", "lora_rank": 4}, "'lora_rank' is not a setting of lora"),
        ({"delta_type": "lora", "lora_r": 0}, "lora_r is 0"),
        ({"delta_type": "lora", "lora_dropout": 1.0}, "lora_dropout is 1.0"),
        ({"delta_type": "lora", "lora_r": True}, "lora_r is true"),
        ({"delta_type": "lora", "modified_modules": []}, "expected at least one name"),
        ({"delta_type": "adapter", "bottleneck": 4}, "Did you mean 'bottleneck_dim'"),
        ({"delta_type": "adapter", "non_linearity": "gelu"}, "non_linearity is 'gelu'"),
        ({"delta_type": "parallel_adapter", "modified_modules": ["w_in"]}, "expected pairs"),
        ({"delta_type": "prefix", "mid_dim": 8}, "mid_dim has no effect unless reparameterize"),
        ({"delta_type": "full", "lr": 1}, "'lr' is not a setting of full"),
        ({"delta_type": "soft_prompt", "ratio_list": [1, 1]}, "2 numbers for the slots front, m"),
        ({"delta_type": "soft_prompt", "ratio_list": [0, 0, 0]}, "gives no slot a token"),
        ({"delta_type": "soft_prompt", "ratio_list": [1, 99, 0], "soft_token_num": 9}, "none of 9"),
        ({"delta_type": "soft_prompt", "ratio_list": [-1, 1, 1]}, "ratio_list.0 is -1"),
        ({"delta_type": "soft_prompt", "init_text": "好"}, "give both or none"),
    ],
)
def test_a_wrong_delta_config_is_named(values: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_config(values, "here")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 200_000, "nested too deep"),
        ('{"lora_r": ' + "1" * 5000 + "}", "not valid JSON"),
        ("[]", "expected a JSON object, found list"),
        (None, "there is no such file"),
    ],
)
def test_a_file_that_is_no_delta_is_one_sentence(
    tmp_path: Path, text: str | None, said: str
) -> None:
    file = tmp_path / "own.json"
    if text is not None:
        file.write_text(text, "utf-8")
    with pytest.raises(UserError, match=f"own.json: .*{said}"):
        load_preset(str(file))


def test_a_byte_order_mark_and_a_name_alone_are_understood(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text('{"delta_type": "lora", "modified_modules": "w_0"}', "utf-8-sig")
    config = parse_config(load_preset(str(file)), "here")
    assert config == LoraConfig(modified_modules=("w_0",))
    assert parse_settings(["delta.ratio_list=[1e-1, 2, x]"])["delta.ratio_list"] == [0.1, 2, "x"]


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_importing_the_package_imports_neither_torch_nor_opendelta_nor_transformers() -> None:
    code = "import sys, cpm_tune.commands.cli, cpm_tune.delta.config, cpm_tune.runs.examined; "
    code += "heavy = {'torch', 'opendelta', 'transformers', 'datasets', 'sklearn', 'datasketch'}; "
    code += "print(sorted(heavy & set(sys.modules)))"
    assert run_python(code) == "[]\n"


def test_importing_opendelta_opens_nothing_says_nothing_and_leaves_the_path_alone() -> None:
    code = """
import socket, sys
def refuse(*a, **k): raise RuntimeError('network')
socket.socket.connect = socket.create_connection = refuse
path = list(sys.path)
import cpm_tune.delta.models
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
from cpm_tune.planning.settings import parse_settings
from cpm_tune.task.registry import load_preset
try:
    opendelta()
except UserError as error:
    print(error)
"""
    assert run_python(code).strip().endswith("run: pip install --no-deps opendelta==0.3.2")
