"""The backbone in 8 bits: what is stored, what is computed with it, what a run says of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from conftest import CLI, vocabulary
from delta_table import DELTAS, SHA, backbone, forward
from torch import nn

import cpm_tune as ct
from cpm_tune.backbone.ant.checkpoint import load_weights, save_native
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.quantize import quantize_int8
from cpm_tune.backbone.storage.shards import stored
from cpm_tune.delta.config import NoneConfig
from cpm_tune.delta.insert import frozen_checksum, insert
from cpm_tune.schema.record import read_record

pytestmark = pytest.mark.usefixtures("one_thread")
INT8 = ("--quantize", "int8")


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
    assert (code, "warning" in said) == (0, False)
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
    assert "--quantize cannot be combined with run.shard" in said
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    code, _, said = cli("--task", "lcqmc", "--quantize", "int8")
    assert code == 2
    assert "pip install 'cpm-tune[int8]'" in said


# --- what does not train ---


@pytest.fixture(scope="module")
def runs(small_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ct.Run]:
    """A LoRA on whole weights, one on 8-bit ones, and full fine-tuning."""
    made, out = {}, tmp_path_factory.mktemp("runs")
    settings = {"train.max_steps": 2, "train.eval_every": 2}
    for name, delta, more in (
        ("fp32", "lora", {}),
        ("int8", "lora", {"quantize": "int8"}),
        ("full", "full", {}),
    ):
        given = {"backbone": small_backbone, "settings": settings, "limit": 12, "controls": ()}
        made[name] = ct.tune("ccpm", delta, out=out, **given, **more)
    return made


def test_texts_are_those_of_the_rounded_weights(
    cli: CLI, small_backbone: Path, tmp_path: Path
) -> None:
    rounded = quantize_int8(load_weights(open_folder(small_backbone), torch.float32))
    for module in rounded.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(module.weight.dequantize())
    save_native(tmp_path / "rounded", rounded, "\n".join(vocabulary()) + "\n", trained=True)
    words = ("generate", "春风", "--max-new-tokens", "8", "--num", "2", "--jsonl", "--backbone")
    (whole, expected, found) = (
        [json.loads(line) for line in cli(*words, *more)[1].splitlines()]
        for more in ((small_backbone,), (tmp_path / "rounded",), (small_backbone, *INT8))
    )
    assert [row["text"] for row in found] == [row["text"] for row in expected]
    for one, other, plain in zip(found, expected, whole, strict=True):
        assert one["log_prob"] == pytest.approx(other["log_prob"], abs=1e-3)
        assert one["log_prob"] != plain["log_prob"]
    code, filled, _ = cli("generate", "--infill", "春__{2}风", "--backbone", small_backbone, *INT8)
    assert (code, len(filled.strip())) == (0, 4)


def test_a_run_is_predicted_in_8_bits_if_asked_for_or_tuned_so(
    cli: CLI, runs: dict[str, ct.Run], small_backbone: Path, tmp_path: Path
) -> None:
    def predicted(run: str, *more: object) -> str:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        code, _, error = cli("predict", runs[run].folder, "--limit", "12", "--out", out, *more)
        assert code == 0, error
        return (out / "predictions.test.jsonl").read_text()

    own = (runs["int8"].folder / "predictions.test.jsonl").read_text()
    assert predicted("int8") == own
    asked = predicted("fp32", *INT8, "--delta-from", runs["int8"].folder)
    assert asked == own
    assert predicted("fp32", *INT8) != predicted("fp32")
    words = ("generate", "春风", "--jsonl", "--delta-from", runs["int8"].folder)
    said = cli(*words)[1]
    assert said == cli(*words, *INT8)[1]
    other = ct.load_backbone(small_backbone, quantize="int8")
    other.load_delta(runs["int8"].folder)
    assert other.generate("春风") == runs["int8"].backbone().generate("春风")
    assert other.model.quantized


def test_what_does_not_go_with_8_bits_where_nothing_is_trained(
    cli: CLI,
    runs: dict[str, ct.Run],
    small_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit, out = ("--memory-limit", "1GB"), ("--out", tmp_path / "out")
    full, given = runs["full"].folder, ("--backbone", small_backbone)
    conflict = "--memory-limit cannot be combined with 8-bit weights"
    for words, said in (
        (("generate", "春", *given, *INT8, *limit), conflict),
        (("generate", "春", "--delta-from", runs["int8"].folder, *limit), conflict),
        (("predict", runs["fp32"].folder, *INT8, *limit, *out), conflict),
        (("predict", runs["int8"].folder, *limit, *out), "or a run that was tuned with it"),
        (("generate", "春", "--delta-from", full, *INT8), "does not keep; export it"),
        (("predict", full, *INT8, *out), "full fine-tuning trains it"),
        (("predict", runs["fp32"].folder, "--delta-from", full, *INT8, *out), "does not keep"),
    ):
        code, _, error = cli(*words)
        assert (code, error.count("\n")) == (2, 1), words
        assert said in error, words
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    for words in (
        ("generate", "春", *given, *INT8),
        ("generate", "春", "--delta-from", runs["int8"].folder),
        ("predict", runs["fp32"].folder, *INT8, *out),
    ):
        code, _, error = cli(*words)
        assert (code, error.count("\n")) == (2, 1), words
        assert "pip install 'cpm-tune[int8]'" in error, words
    assert not (tmp_path / "out").exists()


def test_a_run_without_it_keeps_the_hash_it_had() -> None:
    from cpm_tune.schema.spec import BackboneSpec

    assert BackboneSpec(sha256="a").model_dump() == {"sha256": "a", "init": "checkpoint"}
    assert BackboneSpec(sha256="a", quantize="int8").model_dump(mode="json")["quantize"] == "int8"
