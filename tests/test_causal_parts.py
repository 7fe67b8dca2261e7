"""A sharded causal model: each process reads its part of each tensor, and no model as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from causal_folders import SHAPES, make_folder
from safetensors.torch import load_file, save_file

from cpm_tune.backbone.causal import loading
from cpm_tune.backbone.families import open_folder

WHOLE = {"mixtral", "gpt_neox"}  # files with a tensor per expert, or with other names
TRIED = ["llama", "qwen3", "gemma2", "cohere", "opt", "mixtral"]
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
    assert bool(calls) == (kind in WHOLE)
    assert model.state_dict().keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    ids = torch.arange(4, 40)[None]
    with torch.no_grad():
        ours, theirs = (m.eval().model(input_ids=ids).logits for m in (model, expected))
    assert torch.equal(ours, theirs)


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
