"""The backbone in 8 bits: what is stored, what is computed with it, what a run says of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from conftest import CLI
from delta_table import DELTAS, SHA, backbone, forward
from torch import nn

from cpm_tune.backbone.quantize import quantize_int8
from cpm_tune.backbone.shards import stored
from cpm_tune.delta.config import NoneConfig
from cpm_tune.delta.insert import frozen_checksum, insert
from cpm_tune.record import read_record

pytestmark = pytest.mark.usefixtures("one_thread")


def test_linear_weights_of_the_layers_become_int8_with_a_scale_a_row() -> None:
    model = quantize_int8(backbone())
    whole = backbone()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            weight = whole.get_submodule(name).weight.detach()
            n_bytes = sum(part.nbytes for part in stored(module.weight))
            assert n_bytes <= weight.numel() + 8 * len(weight)
            step = weight.abs().amax(dim=1, keepdim=True) / 127.5  # 256 numbers over the range
            wrong = (module.weight.dequantize() - weight).abs() / step
            assert 0.4 < float(wrong.max()) <= 0.5001
    for name in ("input_embedding.weight", "position_bias.relative_attention_bias"):
        assert torch.equal(model.get_parameter(name), whole.get_parameter(name))


@pytest.mark.parametrize("name", [name for name in DELTAS if name != "full"])
def test_every_delta_trains_on_int8_as_on_the_rounded_weights(name: str) -> None:
    config, found = DELTAS[name], []
    for quantized in (True, False):
        model = quantize_int8(backbone())
        for module in model.modules() if not quantized else ():
            if isinstance(module, nn.Linear):
                module.weight = nn.Parameter(module.weight.dequantize())
        nothing = insert(model, NoneConfig(), SHA, 0)
        bare = frozen_checksum(model, nothing)
        nothing.remove()
        delta = insert(model, config, SHA, 1)
        hidden = forward(model, config)
        hidden.square().mean().backward()
        found.append((hidden, {k: p.grad for k, p in delta.parameters.items()}))
        delta.remove()
        assert frozen_checksum(model, insert(model, NoneConfig(), SHA, 0)) == bare
    (hidden, grads), (expected, wanted) = found
    torch.testing.assert_close(hidden, expected, atol=1e-3, rtol=1e-3)
    for key, gradient in wanted.items():
        torch.testing.assert_close(grads[key], gradient, atol=1e-4, rtol=1e-2)


def test_it_is_another_run_and_its_controls_and_predictions_have_it_too(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    words = ["--task", "lcqmc", "--data", data, "--backbone", small_backbone, "--out", tmp_path]
    words += ["--set", "train.max_steps=2", "--set", "train.eval_every=2", "--quantize", "int8"]
    code, _, said = cli(*words)
    assert (code, said) == (0, "")
    records = [read_record(path) for path in tmp_path.glob("lcqmc.*/run.json")]
    assert {record.spec.weights for record in records} == {"fp32+int8"}
    (run,) = tmp_path.glob("lcqmc.lora.*")
    assert cli("predict", run, "--data", data, "--out", tmp_path / "again")[0] == 0
    again = (tmp_path / "again" / "predictions.test.jsonl").read_text()
    assert again == (run / "predictions.test.jsonl").read_text()


def test_what_does_not_go_with_int8(cli: CLI, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--task", "lcqmc", "--quantize", "int8", "--delta", "full", "--shard")
    code, _, said = cli(*words)
    assert code == 2
    assert "full fine-tuning trains it" in said
    assert "--quantize goes with neither run.shard" in said
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    code, _, said = cli("--task", "lcqmc", "--quantize", "int8")
    assert code == 2
    assert "pip install 'cpm-tune[int8]'" in said


def test_a_run_without_it_keeps_the_hash_it_had() -> None:
    from cpm_tune.spec import BackboneSpec

    assert BackboneSpec(sha256="a").model_dump() == {"sha256": "a", "init": "checkpoint"}
    assert BackboneSpec(sha256="a", quantize="int8").model_dump(mode="json")["quantize"] == "int8"
