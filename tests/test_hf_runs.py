"""Runs on models in Hugging Face's format: tuned, resumed, shared, exported, benched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import encdec_folders
import pytest
import torch
from causal_folders import make_folder
from conftest import CLI, write_jsonl
from kills import FORKS
from safetensors.torch import load_file, save_file
from same_runs import assert_same, ended_in_step_3, in_two, read_run
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT = (
    *("--set", "train.max_steps=4", "--set", "train.eval_every=2"),
    *("--set", "train.batch_size=8", "--set", "train.dev_rows=8"),
)
DROPOUTS = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}


def made(kind: str, factory: pytest.TempPathFactory) -> Path:
    folder = factory.mktemp("models") / kind
    if kind == "mt5":
        return encdec_folders.make_folder(folder, kind)
    return make_folder(folder, kind, **(DROPOUTS if kind == "gpt2" else {}))


@pytest.fixture(scope="module", params=["gpt2", "llama", "mt5"])
def model(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(request.param, tmp_path_factory)


@pytest.fixture(scope="module", params=["llama", "mt5"])
def other(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without GPT-2, for what is the same of all causal models."""
    return made(request.param, tmp_path_factory)


def tune(cli: CLI, model: Path, data: Path, out: Path, *words: object) -> Path:
    """Tune on LCQMC's rows; return the run's folder."""
    given = ("--task", "lcqmc", "--data", data, "--backbone", model, "--out", out, *SHORT, *words)
    code, _, error = cli(*given)
    assert code == 0, error
    (run,) = [path.parent for path in out.glob("*/run.json") if "none" not in path.parent.name]
    return run


def test_a_run_is_tuned_predicted_and_merged(
    cli: CLI, model: Path, data: Path, tmp_path: Path
) -> None:
    run = tune(cli, model, data, tmp_path / "out")
    record = json.loads((run / "run.json").read_text())
    family, attention = {
        "gpt2": ("causal", "attn.c_attn.{}"),
        "llama": ("causal", "self_attn.{}_proj"),
        "mt5": ("encdec", "SelfAttention.{}"),
    }[model.name]
    assert record["spec"]["backbone"]["family"] == family
    assert record["spec"]["delta"]["modified_modules"] == [*map(attention.format, "qv")]
    assert cli("predict", run, "--split", "test", "--data", data, "--out", tmp_path / "p")[0] == 0
    predictions = (run / "predictions.test.jsonl").read_bytes()
    assert (tmp_path / "p" / "predictions.test.jsonl").read_bytes() == predictions
    code, _, error = cli("export", run, "--to", "merged", "--out", tmp_path / "merged")
    assert code == 0, error
    kind = AutoModelForSeq2SeqLM if family == "encdec" else AutoModelForCausalLM
    assert kind.from_pretrained(tmp_path / "merged").config.vocab_size > 100
    again = tune(cli, tmp_path / "merged", data, tmp_path / "zero", "--delta", "bitfit")
    controls = json.loads((again / "run.json").read_text())["controls"]
    assert controls["zero-shot"]["value"] == record["scores"]["test"]["accuracy"]["value"]


@pytest.mark.parametrize(
    ("rule", "template"), [("mean-nll", "cpm-ant"), ("verbaliser-relative", "cpm-2")]
)
def test_options_are_scored_by_the_rules_of_other_templates(
    cli: CLI, model: Path, data: Path, tmp_path: Path, rule: str, template: str
) -> None:
    """A passage is scored from its first token on, or its second without a first one of its own."""
    run = tune(cli, model, data, tmp_path, "--scoring", rule, "--template", template)
    record = json.loads((run / "run.json").read_text())
    assert (record["scoring"], record["spec"]["scoring"]) == (rule, rule)
    scores = [json.loads(line)["scores"] for line in (run / "predictions.test.jsonl").open()]
    assert {len(options) for options in scores} == {2}


def test_texts_are_tuned_and_generated(cli: CLI, model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for split, n in (("train", 16), ("dev", 4), ("test", 4)):
        rows = [{"id": i, "text": f"猫狗{i}花草", "summary": "猫狗"} for i in range(n)]
        write_jsonl(data / f"{split}.jsonl", rows)
    given = ("--task", "lcsts", "--data", data, "--backbone", model, "--out", tmp_path / "out")
    code, _, error = cli(*given, *SHORT, "--set", "decode.max_new_tokens=6", "--delta", "prefix")
    assert code == 0, error
    for how in ((), ("--beams", 1, "--stream")):
        words = ("generate", "猫怎么养", "--backbone", model, "--max-new-tokens", 5, *how)
        code, text, error = cli(*words)
        assert (code, len(text.strip()) > 0) == (0, True), error


@pytest.mark.parametrize(
    "words", [("--checkpointing",), ("--precision", "bf16"), ("--quantize", "int8")]
)
def test_ways_to_run(cli: CLI, model: Path, data: Path, tmp_path: Path, words: Any) -> None:
    run = tune(cli, model, data, tmp_path / "out", *words)
    if words == ("--checkpointing",):
        assert_same(read_run(tune(cli, model, data, tmp_path / "plain")), read_run(run))


@FORKS
def test_two_processes_do_what_one_does(cli: CLI, model: Path, data: Path, tmp_path: Path) -> None:
    one = tune(cli, model, data, tmp_path / "one")
    words = ("--task", "lcqmc", "--data", data, "--backbone", model, *SHORT)
    for name, more in (("two", ()), ("shared", ("--shard",))):
        in_two(*words, "--out", tmp_path / name, *more)
        assert_same(read_run(one), read_run(tmp_path / name / one.name))


@FORKS
def test_a_killed_run_goes_on(other: Path, data: Path, cli: CLI, tmp_path: Path) -> None:
    """Killed in its third step; the rest is bit for bit what it would have been."""
    often = ("--set", "run.checkpoint_minutes=0")
    whole = tune(cli, other, data, tmp_path / "whole", *often)
    words = ("--task", "lcqmc", "--data", data, "--backbone", other, "--out", tmp_path / "out")
    ended_in_step_3(*words, *SHORT, "--set", "run.checkpoint_minutes=0")
    run = tune(cli, other, data, tmp_path / "out", *often)
    for name in ("delta.safetensors", "predictions.test.jsonl"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()


def test_estimate_bench_controls_and_the_list(
    cli: CLI, other: Path, data: Path, tmp_path: Path
) -> None:
    for which in (other, "cpm-1-small", "mt5-small"):
        code, text, error = cli(
            "estimate", "--backbone", which, "--batch-size", 4, "--length", 64, "--checkpointing"
        )
        assert (code, "peak" in text) == (0, True), error
    code, text, _ = cli("list", "backbones")
    assert (code, "cpm-1-large" in text, "causal: " in text) == (0, True, True)
    assert "encdec: " in text
    given = ("bench", "--tasks", "lcqmc", "--deltas", "lora", "--seeds", "1", "--backbones", other)
    code, _, error = cli(
        *given, "--data", data, "--out", tmp_path / "bench", *SHORT, "--control", "random-backbone"
    )
    assert code == 0, error
    runs = [json.loads(path.read_text()) for path in (tmp_path / "bench").glob("*/run.json")]
    assert {run["spec"]["backbone"]["init"] for run in runs} == {"checkpoint", "random"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "encode.segment=1"), "encode.segment has no effect"),
        (("--delta", "none", "--memory-limit", "1GB"), "omit the memory limit"),
    ],
)
def test_what_the_family_does_not_have_is_one_sentence(
    cli: CLI, other: Path, data: Path, tmp_path: Path, words: Any, message: str
) -> None:
    given = ("--task", "lcqmc", "--data", data, "--backbone", other, "--out", tmp_path / "out")
    code, _, error = cli(*given, *(SHORT if "none" not in words else ()), *words)
    assert (code, message in error) == (2, True), error


def test_more_tokens_than_positions_are_one_sentence(
    cli: CLI, data: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    llama = made("llama", tmp_path_factory)
    given = ("--task", "lcqmc", "--data", data, "--backbone", llama, "--out", tmp_path / "out")
    code, _, error = cli(*given, *SHORT, "--set", "encode.max_length=600")
    assert (code, "reads 512 tokens at most" in error) == (2, True), error


def test_weights_that_are_not_finite_or_lack_a_tensor_are_one_sentence(
    cli: CLI, other: Path, tmp_path: Path
) -> None:
    lost = "missing" if other.name == "mt5" else "is in none of the weights"
    for change, message in (("nan", "is not finite"), ("lost", lost)):
        folder = tmp_path / change
        shutil.copytree(other, folder)
        state = load_file(folder / "model.safetensors")
        names = {"model.norm.weight", "encoder.final_layer_norm.weight"}
        (norm,) = state.keys() & names
        if change == "nan":
            state[norm][0] = torch.nan
        else:
            del state[norm]
        save_file(state, folder / "model.safetensors")
        code, _, error = cli("generate", "猫", "--backbone", folder)
        assert (code, message in error) == (2, True), error
