"""A sharded causal model: each process reads its part of each tensor, and no model as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from causal_folders import SHAPES, make_folder

from cpm_tune.backbone.causal import loading
from cpm_tune.backbone.families import open_folder

WHOLE = {"gpt2", "bloom", "gpt_neox", "phi3", "mixtral"}  # fused or of several tensors
TRIED = ["llama", "qwen2", "qwen3", "mistral", "gemma2", "cohere", "opt", "gpt2", "phi3", "mixtral"]


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
