"""A sharded causal model: each process reads its part of each tensor, and no model as a whole."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from causal_folders import SHAPES, make_folder
from safetensors.torch import load_file, save_file

from cpm_tune.backbone.causal import loading
from cpm_tune.backbone.families import open_folder
from cpm_tune.errors import UserError

TRIED = ["llama", "qwen3", "gemma2", "cohere", "opt"]
TRIED += ["mixtral"]  # in files a tensor per expert
TRIED += ["gpt2", "bloom", "gpt_neox", "phi3"]  # with fused projections


def in_memory(model: Any) -> bool:
    model.to_empty(device="cpu")
    return True


@pytest.mark.parametrize("kind", TRIED)
def test_tensors_are_read_one_at_a_time_where_files_have_the_models_own(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kind in SHAPES
    folder = open_folder(make_folder(tmp_path / kind, kind))
    expected = folder.open(torch.float32)
    calls: list[Any] = []
    whole = loading._whole
    monkeypatch.setattr(loading, "_whole", lambda *given: calls.append(given) or whole(*given))
    model = folder.open(torch.float32, materialise=in_memory)
    assert not calls
    assert model.state_dict().keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    ids = torch.arange(4, 40)[None]
    with torch.no_grad():
        ours, theirs = (m.eval().model(input_ids=ids).logits for m in (model, expected))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("change", ["a name of an expert", "a version without these rules"])
def test_what_transformers_rules_do_not_fit_is_read_as_a_whole(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_folder(tmp_path / "mixtral", "mixtral")
    if change == "a name of an expert":
        state = load_file(path / "model.safetensors")
        state["model.layers.0.block_sparse_moe.experts.9.w2.weight"] = torch.ones(3)
        save_file(state, path / "model.safetensors", {"format": "pt"})
        with pytest.raises(UserError) as refused:
            open_folder(path).open(torch.float32, materialise=in_memory)
        assert "\n" not in str(refused.value)
        return
    expected = open_folder(path).open(torch.float32).state_dict()
    monkeypatch.setitem(sys.modules, "cpm_tune.backbone.causal.conversion", None)
    made = open_folder(path).open(torch.float32, materialise=in_memory).state_dict()
    assert all(torch.equal(made[name], value) for name, value in expected.items())


def test_an_engine_without_parts_reads_as_before(tmp_path: Path) -> None:
    folder = open_folder(make_folder(tmp_path / "llama", "llama"))
    model = folder.open(torch.float32, materialise=lambda model: False)
    for name, value in folder.open(torch.float32).state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_a_gpt2_of_an_older_transformers_has_no_head_but_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_folder(tmp_path / "gpt2", "gpt2")
    expected = open_folder(path).open(torch.float32)
    state = load_file(path / "model.safetensors")
    bare = {name.removeprefix("transformer."): value for name, value in state.items()}
    ones = torch.ones(1, 1, 4, 4, dtype=torch.uint8)
    bare |= {"h.0.attn.bias": ones, "h.0.attn.masked_bias": torch.tensor(-1e4)}
    save_file(bare, path / "model.safetensors", {"format": "pt"})
    again = open_folder(path).open(torch.float32)
    monkeypatch.setattr(loading, "_whole", lambda *given: pytest.fail("read as a whole"))
    in_parts = open_folder(path).open(torch.float32, materialise=in_memory)
    for name, value in expected.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
        assert torch.equal(in_parts.state_dict()[name], value), name
