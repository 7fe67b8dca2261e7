"""Deltas that users have: OpenDelta's folders, CPM-Live's best.pt, PEFT's exact forms of LoRA."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from conftest import CLI
from delta_table import SHA, backbone, forward, perturb
from safetensors.torch import load_file
from test_export import close, hf_forward, our_logits
from torch import Tensor

import cpm_tune as ct
from cpm_tune.backbone.ant.checkpoint import load_weights
from cpm_tune.backbone.ant.config import ROLES
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.delta.config import (
    AdapterConfig,
    BitFitConfig,
    CompacterConfig,
    LoraConfig,
    with_names,
)
from cpm_tune.delta.foreign import read_peft, write_opendelta, write_peft
from cpm_tune.delta.insert import insert
from cpm_tune.delta.modules import matched_modules
from cpm_tune.delta.saved import read_saved
from cpm_tune.delta.several import Deltas
from cpm_tune.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")
OPENDELTAS = [
    LoraConfig(lora_r=3, lora_alpha=5),
    LoraConfig(modified_modules=("[r]layers\\.[01]\\.self_att\\.self_attention\\.project_[qk]",)),
    AdapterConfig(bottleneck_dim=4, non_linearity="relu"),
    CompacterConfig(reduction_factor=2),
]


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def named(config: Any) -> Any:
    """The config with CPM-Ant's names of modules for roles."""
    return with_names(config, ROLES)


def made(config: Any) -> tuple[CPMAnt, dict[str, Tensor]]:
    """A backbone with a delta whose values matter, and they."""
    model = backbone()
    delta = insert(model, config, SHA, seed=1)
    perturb(delta, 0.2)
    return model, delta.state()


def insert_saved(folder: Path) -> None:
    model = backbone()
    config, values = read_saved(folder, model, SHA)
    insert(model, config, SHA, 0, values=values)


# --- OpenDelta ---


@pytest.mark.parametrize("config", OPENDELTAS, ids=lambda c: c.delta_type)
def test_what_is_exported_to_opendelta_reads_back_bit_for_bit(config: Any, tmp_path: Path) -> None:
    model, state = made(config)
    write_opendelta(tmp_path, model, config, state)
    again, values = read_saved(tmp_path, backbone(), SHA)
    assert again == named(config)
    assert same(values, state)


def test_modules_that_were_excluded_come_back_by_their_names(tmp_path: Path) -> None:
    config = named(LoraConfig(exclude_modules=("encoder.layers.0",)))
    model, state = made(config)
    write_opendelta(tmp_path, model, config, state)
    again, values = read_saved(tmp_path, backbone(), SHA)
    assert isinstance(again, LoraConfig)
    assert matched_modules(backbone(), again) == matched_modules(backbone(), config)
    assert same(values, state)


@pytest.mark.parametrize("kind", ["LoraModel", "AdapterModel", "CompacterModel"])
def test_what_opendelta_itself_saves_computes_the_same_here(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import opendelta

    theirs = backbone()
    theirs.dummy_inputs = {name: torch.zeros(1, 2, dtype=torch.long) for name in ("ids", "segment")}
    monkeypatch.setattr(type(theirs.config), "_name_or_path", "tiny/", raising=False)
    settings = {"reduction_factor": 2} if kind == "CompacterModel" else {}
    model = getattr(opendelta, kind)(theirs, modified_modules=["self_attention"] if settings else
        ["project_q", "w_out"], **settings)  # fmt: skip
    model.freeze_module(exclude=["deltas"], set_state_dict=True)
    with torch.no_grad():
        for parameter in theirs.state_dict().values():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    model.save_finetuned(str(tmp_path))
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["exclude_modules"] == ["lm_head"]  # OpenDelta's own default
    config, state = read_saved(tmp_path, backbone(), SHA)
    ours = backbone()
    insert(ours, config, SHA, 0, values=state)
    with torch.no_grad():
        assert close(forward(ours, config), forward(theirs, config))


def test_opendeltas_other_methods_and_settings_are_one_sentence(tmp_path: Path) -> None:
    model, state = made(LoraConfig())
    write_opendelta(tmp_path, model, LoraConfig(), state)
    file, weights = tmp_path / "config.json", tmp_path / "pytorch_model.bin"
    values = json.loads(file.read_text())
    for changes, words in (
        ({"delta_type": "prefix"}, "delta_type is 'prefix'; of OpenDelta's, lora"),
        ({"delta_type": ["lora"]}, "of OpenDelta's, lora, adapter and compacter can be read"),
        ({"delta_type": "adapter", "bottleneck_dim": 4}, "is not part of a adapter"),
        ({"lora_r": "8"}, "lora_r"),
        ({"shared_phm_rule": True}, "shared_phm_rule is True, which lora does not have"),
    ):
        file.write_text(json.dumps({**values, **changes}))
        with pytest.raises(UserError, match=words):
            read_saved(tmp_path, backbone(), SHA)
    file.write_text(json.dumps({**values, "modified_modules": ["nothing", "of", "[r]("]}))
    assert same(read_saved(tmp_path, backbone(), SHA)[1], state)  # the tensors say which modules
    torch.save({**state, "input_embedding.weight": torch.ones(2, 2)}, weights)
    with pytest.raises(UserError, match=r"input_embedding\.weight is not part of a lora"):
        read_saved(tmp_path, backbone(), SHA)
    torch.save({}, weights)
    with pytest.raises(UserError, match="contains no tensors"):
        read_saved(tmp_path, backbone(), SHA)
    weights.unlink()
    with pytest.raises(UserError, match=r"pytorch_model\.bin is missing"):
        read_saved(tmp_path, backbone(), SHA)


# --- CPM-Live ---


@pytest.mark.parametrize("rank", [8, 3])
@pytest.mark.parametrize("place", ["", "best.pt"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_cpm_lives_best_pt_is_read(rank: int, place: str, prefix: str, tmp_path: Path) -> None:
    config = LoraConfig(lora_r=rank)
    _, state = made(config)
    half = {prefix + name: value.half() for name, value in state.items()}
    torch.save(half, tmp_path / "best.pt")
    (tmp_path / "logs").mkdir()
    again, values = read_saved(tmp_path / place, backbone(), SHA)
    assert again == named(config)
    assert same(values, {name: value.half().float() for name, value in state.items()})


def test_a_best_pt_of_anything_else_is_one_sentence(tmp_path: Path) -> None:
    _, adapter = made(AdapterConfig(bottleneck_dim=4))
    _, lora = made(LoraConfig())
    first = next(iter(lora))
    for state, words in (
        (adapter, "is not part of a lora; save the delta alone"),
        (backbone().state_dict(), "is not part of a lora; save the delta alone"),
        ({**lora, first: torch.ones(3)}, "does not fit|lora_r"),
        ({"a.lora.lora_A": torch.ones(2, 2)}, "no module of the backbone is named 'a'"),
        ({}, "contains no tensors"),
        ({first: torch.full_like(lora[first], torch.nan)}, "contains NaN"),
        ({"lora": lora}, "'lora' is dict"),
    ):
        torch.save(state, tmp_path / "best.pt")
        with pytest.raises(UserError, match=words) as caught:
            insert_saved(tmp_path)
        assert "\n" not in str(caught.value)


# --- regular expressions ---


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("[r]project_[qv]", ["project_q", "project_v"]),
        ("[r]layers\\.1\\..*project_k", ["layers.1.self_att.self_attention.project_k"]),
        ("[r]roject_q", []),  # not a whole part of a name
        ("[r]project_", []),  # not an ending
        ("[r]w_0|w_1", ["w_0", "w_1"]),
        ("[r].*attention_out", ["attention_out"]),
    ],
)
def test_regular_expressions_match_as_in_opendelta(written: str, expected: list[str]) -> None:
    from cpm_tune.delta.opendelta_import import opendelta

    opendelta()
    from opendelta.utils.name_based_addressing import endswith_in

    model = backbone()
    names = [name for name, _ in model.named_modules() if name]
    theirs = [name for name in names if endswith_in(name, [written])]
    if not expected:
        assert theirs == []
        with pytest.raises(UserError, match="no module of the backbone is named"):
            matched_modules(model, LoraConfig(modified_modules=(written,)))
        return
    config = LoraConfig(modified_modules=(written,))
    assert matched_modules(model, config) == theirs
    assert theirs == matched_modules(model, LoraConfig(modified_modules=tuple(expected)))


def test_a_bad_or_slow_regular_expression_is_one_sentence(cli: CLI) -> None:
    with pytest.raises(ValueError, match="is not a regular expression"):
        LoraConfig(modified_modules=("[r](",))
    with pytest.raises(ValueError, match="at most 200 are accepted"):
        LoraConfig(modified_modules=("[r]" + "a" * 500,))
    with pytest.raises(UserError, match="takes too long on names of modules"):
        matched_modules(backbone(), LoraConfig(modified_modules=("[r](?:\\w|\\w\\w|[._])+[A-Z]",)))
    words = ["--task", "lcqmc", "--delta", "lora", "--dry-run"]
    code, _, error = cli(*words, "--set", 'delta.modified_modules=["[r]("]')
    assert (code, "is not a regular expression" in error) == (2, True)
    code, _, error = cli(*words, "--set", 'delta.modified_modules=["[r]project_[qv]"]')
    assert code == 0, error


def test_a_regular_expression_goes_to_peft_as_names(tmp_path: Path) -> None:
    config = LoraConfig(modified_modules=("[r]project_[qv]",))
    model, state = made(config)
    write_peft(tmp_path, model, config, state)
    targets = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert targets == matched_modules(model, config)
    assert same(read_peft(tmp_path, backbone())[1], state)


# --- PEFT ---


PEFT = {
    "plain": {},
    "ranks": {"rank_pattern": {"project_q": 2, r"layers\.1\..*w_out": 7}},
    "alphas": {"alpha_pattern": {"project_q": 3, "w_out": 40}},
    "ranks and alphas": {"rank_pattern": {"w_out": 5}, "alpha_pattern": {"project_q": 1}},
    "rslora": {"use_rslora": True, "lora_alpha": 5},
    "rslora with ranks": {"use_rslora": True, "rank_pattern": {"project_q": 9}},
    "fan_in_fan_out": {"fan_in_fan_out": False},
    "layers": {"layers_to_transform": [1], "layers_pattern": "layers"},
    "a regular expression": {"target_modules": ".*project_[kv]"},
    "another initialisation": {"init_lora_weights": "gaussian"},
}


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("variant", PEFT)
def test_every_exact_variant_of_pefts_lora_gives_its_logits(
    hugging_face: Path, tmp_path: Path, variant: str, pickled: bool
) -> None:
    from transformers import CpmAntForCausalLM

    settings = {"target_modules": ["project_q", "w_out"], "r": 4, **PEFT[variant]}
    theirs = peft.get_peft_model(
        CpmAntForCausalLM.from_pretrained(hugging_face), peft.LoraConfig(**settings)
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2, generator=generator)
    theirs.save_pretrained(tmp_path)
    if pickled:  # as PEFT wrote it before 0.6
        torch.save(
            load_file(tmp_path / "adapter_model.safetensors"), tmp_path / "adapter_model.bin"
        )
        (tmp_path / "adapter_model.safetensors").unlink()
    model = load_weights(open_folder(hugging_face), torch.float32).eval()
    plain = our_logits(model)
    config, state = read_saved(tmp_path, model, SHA)
    insert(model, config, SHA, 0, values=state)
    assert close(our_logits(model), hf_forward(theirs))
    assert not torch.allclose(our_logits(model), plain, atol=1e-2)


def test_ranks_that_the_tensors_do_not_have_are_named(tmp_path: Path) -> None:
    model, state = made(LoraConfig())
    write_peft(tmp_path, model, LoraConfig(), state)
    file = tmp_path / "adapter_config.json"
    values = json.loads(file.read_text())
    for changes, words in (
        (
            {"rank_pattern": {"project_q": 2}},
            "the rank of .*project_q is 2, but its tensors have 8",
        ),
        ({"r": 4}, "is 4, but its tensors have 8"),
        ({"alpha_pattern": {"project_q": "1"}}, "the alpha of .*project_q is '1', expected"),
        ({"alpha_pattern": {"project_q": -1}}, "expected a number above 0"),
        ({"alpha_pattern": {"(": 1}}, "alpha_pattern: .* is not a regular expression"),
        ({"alpha_pattern": [1]}, r"alpha_pattern is \[1\], expected an object"),
        ({"use_dora": True}, r"use_dora is True \(DoRA\), which is not supported here"),
        ({"modules_to_save": ["x" * 9_000]}, "modules trained whole"),
        ({"peft_type": "IA3" * 1000}, "expected LORA"),
    ):
        file.write_text(json.dumps({**values, **changes}))
        with pytest.raises(UserError, match=words) as caught:
            read_peft(tmp_path, backbone())
        assert len(str(caught.value)) < 600 + len(str(tmp_path))


# --- every way in ---


def test_each_can_be_named_wherever_a_delta_is(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    zero = ["--task", "lcqmc", "--data", data, "--backbone", small_backbone, "--delta", "none"]
    assert cli(*zero, "--out", tmp_path / "zero")[0] == 0
    (run,) = (tmp_path / "zero").glob("lcqmc.none*")
    model = load_weights(open_folder(small_backbone), torch.float32)
    delta = insert(model, LoraConfig(), SHA, seed=1)
    perturb(delta, 0.2)
    folders = [tmp_path / name for name in ("opendelta", "live", "peft")]
    for folder in folders:
        folder.mkdir()
    write_opendelta(folders[0], model, LoraConfig(), delta.state())
    torch.save(delta.state(), folders[1] / "best.pt")
    write_peft(folders[2], model, LoraConfig(), delta.state())
    scores = []
    ways = (*folders, folders[1] / "best.pt")
    for number, way in enumerate(ways):
        out = tmp_path / f"out{number}"
        code, _, error = cli("predict", run, "--data", data, "--delta-from", way, "--out", out)
        assert code == 0, error
        scores.append((out / "predictions.test.jsonl").read_bytes())
    assert len(set(scores)) == 1
    assert scores[0] != (run / "predictions.test.jsonl").read_bytes()
    code, _, error = cli(
        *("generate", "猫", "--backbone", small_backbone, "--delta-from", folders[1] / "best.pt"),
        *("--greedy", "--max-new-tokens", "3"),
    )
    assert code == 0, error
    opened = ct.load_backbone(small_backbone)
    for way in ways:
        assert same(opened.load_delta(way).state(), delta.state())
    fresh = load_weights(open_folder(small_backbone), torch.float32)
    deltas = Deltas(fresh, open_folder(small_backbone).sha256())
    for number, way in enumerate(ways):
        deltas.load(str(number), way)
    with pytest.raises(UserError, match="there is no such"):
        opened.load_delta(tmp_path / "nowhere")


def test_what_ours_cannot_express_stays_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not work on CPM-Ant"):
        write_opendelta(tmp_path, backbone(), BitFitConfig(), {})
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        read_saved(tmp_path, backbone(), SHA)
