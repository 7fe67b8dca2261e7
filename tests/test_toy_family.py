"""The door is a door: a family of models that the package has never seen does what CPM-Ant does.

It comes from an installed package, `tests/toy_family.py` with an entry point.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from conftest import CLI, REPOSITORY, rows, vocabulary, write_jsonl
from kills import FORKS
from safetensors.torch import save_file
from same_runs import assert_same, ended_in_step_3, in_two, read_run

import cpm_tune
from cpm_tune.backbone import families as door
from cpm_tune.backbone.base import Recomputed
from cpm_tune.backbone.families import families, open_folder
from cpm_tune.errors import UserError
from cpm_tune.schema.options import Scoring
from cpm_tune.schema.record import read_record
from cpm_tune.schema.spec import Encoding

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT = ("--set", "train.max_steps=4", "--set", "train.eval_every=2", "--set", "train.batch_size=8")
TOY = Path(__file__).parent / "toy_family.py"


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The toy as an installed package, in this process and in its children."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(TOY, site)
    about = site / "toy_family-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-family\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[cpm_tune.families]\ntoy = toy_family:Family\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
        patch.syspath_prepend(str(site))
        door._installed.cache_clear()
        yield
    door._installed.cache_clear()


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy's folder, with weights drawn at random."""
    from toy_family import Config

    from cpm_tune.backbone.opening import random_backbone

    folder = tmp_path_factory.mktemp("toys") / "toy"
    folder.mkdir()
    entries = ["<s>", "</s>", "<pad>", "<unk>", *vocabulary()[8:]]
    (folder / "toy.json").write_text(json.dumps({"width": 32, "depth": 2, "entries": entries}))
    model = random_backbone(Config(32, 2, tuple(entries)), 1, torch.float32)
    save_file(model.state_dict(), folder / "toy.safetensors")
    return folder


def tune(cli: CLI, toy: Path, data: Path, out: Path, *words: object) -> Path:
    """Tune on LCQMC's rows; return the run's folder."""
    given = ("--task", "lcqmc", "--data", data, "--backbone", toy, "--out", out, *SHORT, *words)
    code, _, error = cli(*given)
    assert code == 0, error
    (run,) = [path.parent for path in out.glob("*/run.json") if "none" not in path.parent.name]
    return run


def test_it_is_fewer_than_80_lines_long_and_the_package_does_not_know_it() -> None:
    assert sum(bool(line.strip()) for line in TOY.read_text().splitlines()) < 80
    for path in (REPOSITORY / "cpm_tune").rglob("*.py"):
        assert "toy_family" not in path.read_text(encoding="utf-8")


def test_a_run_is_tuned_recorded_predicted_exported_and_listed(
    cli: CLI, toy: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = tune(cli, toy, data, out)
    record = json.loads((run / "run.json").read_text())
    assert record["spec"]["backbone"]["family"] == "toy"
    assert set(record["spec"]["encoding"]) == {"max_length"}
    assert record["spec"]["delta"]["modified_modules"] == ["gate", "new"]
    assert record["training"]["steps"] == 4
    assert cli("predict", run, "--split", "test", "--data", data, "--out", tmp_path / "p")[0] == 0
    again = (tmp_path / "p" / "predictions.test.jsonl").read_bytes()
    assert again == (run / "predictions.test.jsonl").read_bytes()
    assert cli("export", run, "--to", "opendelta", "--out", tmp_path / "opendelta")[0] == 0
    code, _, error = cli("export", run, "--to", "merged", "--out", tmp_path / "merged")
    assert (code, "models of the family toy cannot be written" in error) == (2, True)
    assert not (tmp_path / "merged").exists()
    code, board, _ = cli("leaderboard", out, "--format", "md")
    assert code == 0
    assert "toy" in board
    assert cli("leaderboard", "verify", out)[0] == 0


def test_generating_tasks_and_texts(cli: CLI, toy: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for split, n in (("train", 16), ("dev", 4), ("test", 4)):
        write_jsonl(
            data / f"{split}.jsonl",
            [{"id": i, "text": f"猫狗{i}花草", "summary": "猫狗"} for i in range(n)],
        )
    given = ("--task", "lcsts", "--data", data, "--backbone", toy, "--out", tmp_path / "out")
    code, _, error = cli(*given, *SHORT, "--set", "decode.max_new_tokens=6")
    assert code == 0, error
    code, text, _ = cli("generate", "猫怎么养", "--backbone", toy, "--max-new-tokens", 5)
    assert (code, len(text.strip()) > 0) == (0, True)
    code, _, error = cli("generate", "--infill", "猫____养", "--backbone", toy)
    assert (code, "models of the family toy fill no blanks" in error) == (2, True)


def test_beams_of_the_default_cache_are_those_of_scoring(toy: Path) -> None:
    backbone = cpm_tune.load_backbone(toy)
    layout = open_folder(toy).layout(Encoding(), backbone.tokenizer)
    ids = (*layout.start, *backbone.tokenizer.encode("猫怎么"))
    with torch.no_grad():
        cache = Recomputed(backbone.model, layout, [ids, ids[:2]])
        first = cache.start()
        tokens = torch.tensor([[5, 6], [7, 8]])
        cache.step(tokens, torch.tensor([[0, 0], [0, 0]]))
        found = cache.step(tokens + 2, torch.tensor([[1, 0], [1, 1]]))
        whole = Recomputed(backbone.model, layout, [(*ids, 6, 7), (*ids[:2], 8, 10)]).start()
    assert first.shape == (2, 1, len(backbone.tokenizer))
    assert torch.allclose(found[0, 0], whole[0, 0], atol=1e-6)
    assert torch.allclose(found[1, 1], whole[1, 0], atol=1e-6)


@pytest.mark.parametrize("words", [("--checkpointing",), ("--precision", "bf16")])
def test_ways_to_run(cli: CLI, toy: Path, data: Path, tmp_path: Path, words: Any) -> None:
    tune(cli, toy, data, tmp_path / "out", *words)


@pytest.mark.parametrize("delta", ["bitfit", "full", "soft_prompt"])
def test_other_deltas(cli: CLI, toy: Path, data: Path, tmp_path: Path, delta: str) -> None:
    names = {"bitfit": ("--set", "delta.modified_modules=[gate, new]")}.get(delta, ())
    few = ("--set", "delta.soft_token_num=6") if delta == "soft_prompt" else ()
    run = tune(cli, toy, data, tmp_path / "out", "--delta", delta, *names, *few)
    assert json.loads((run / "run.json").read_text())["delta"]["name"] == delta


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--delta", "prefix"), "this family of models has no @attention"),
        (
            ("--delta", "prefix", "--set", "delta.modified_modules=[gate]"),
            "prefix cannot modify",
        ),
        (("--set", "encode.segment=1"), "encode.segment has no effect: models of the family toy"),
        (("--delta", "none", "--memory-limit", "1GB"), "cannot be read in parts"),
        (
            ("--delta", "soft_prompt", "--set", "delta.token_init=prompt"),
            "this backbone has 0 prompts",
        ),
    ],
)
def test_what_the_family_does_not_have_is_one_sentence(
    cli: CLI, toy: Path, data: Path, tmp_path: Path, words: Any, message: str
) -> None:
    given = ("--task", "lcqmc", "--data", data, "--backbone", toy, "--out", tmp_path / "out")
    code, _, error = cli(*given, *(SHORT if "none" not in words else ()), *words)
    assert (code, message in error) == (2, True), error


def test_pre_training_pruning_and_converting_are_refused(cli: CLI, toy: Path, data: Path) -> None:
    convert = ("convert", toy, data / "out", "--to", "hf")
    texts = ("--text", data / "dev.jsonl", "--attention-layers", 1, "--ffn-layers", 1)
    for words, message in (
        (convert, "models of the family toy have one checkpoint format"),
        (("prune", toy, data / "out", *texts), "works with CPM-Ant only"),
    ):
        code, _, error = cli(*words)
        assert (code, message in error) == (2, True), error


@FORKS
def test_two_processes_do_what_one_does(cli: CLI, toy: Path, data: Path, tmp_path: Path) -> None:
    one = tune(cli, toy, data, tmp_path / "one")
    words = ("--task", "lcqmc", "--data", data, "--backbone", toy, *SHORT)
    for name, more in (("two", ()), ("shared", ("--shard",))):
        in_two(*words, "--out", tmp_path / name, *more)
        assert_same(read_run(one), read_run(tmp_path / name / one.name))


@FORKS
def test_a_killed_run_goes_on(toy: Path, data: Path, cli: CLI, tmp_path: Path) -> None:
    """Killed in its third step, which a device that ends the process there stands for."""
    whole = tune(cli, toy, data, tmp_path / "whole", "--set", "run.checkpoint_minutes=0")
    words = ("--task", "lcqmc", "--data", data, "--backbone", toy, "--out", tmp_path / "out")
    ended_in_step_3(*words, *SHORT, "--set", "run.checkpoint_minutes=0")
    run = tune(cli, toy, data, tmp_path / "out", "--set", "run.checkpoint_minutes=0")
    for name in ("delta.safetensors", "predictions.test.jsonl"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()


def test_estimate_doctor_bench_and_the_list(
    cli: CLI, toy: Path, data: Path, tmp_path: Path
) -> None:
    code, text, error = cli("estimate", "--backbone", toy, "--batch-size", 4, "--length", 64)
    assert (code, "peak" in text) == (0, True), error
    assert cli("estimate", "--backbone", "toy-small", "--length", 64)[0] == 0
    code, text, _ = cli("list", "backbones")
    assert (code, "toy-small" in text, "toy: a recurrent toy" in text) == (0, True, True)
    assert "cpm-ant-10b" in text
    assert cli("doctor")[0] in (0, 1)
    given = ("bench", "--tasks", "lcqmc", "--deltas", "lora", "--seeds", "1", "--backbones", toy)
    code, _, error = cli(*given, "--data", data, "--out", tmp_path / "bench", *SHORT)
    assert code == 0, error
    assert len(list((tmp_path / "bench").glob("*/run.json"))) >= 1


def test_a_family_that_does_not_load_or_takes_a_name_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = tmp_path / "other-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    points = {"absent_module:F": "does not load", "toy_family:Family": "there is a family 'toy'"}
    monkeypatch.syspath_prepend(str(tmp_path))
    for target, message in points.items():
        (about / "entry_points.txt").write_text(f"[cpm_tune.families]\nztoy = {target}\n")
        door._installed.cache_clear()
        with pytest.raises(UserError, match=message):
            families()
    door._installed.cache_clear()


def test_rows_for_the_toy_can_be_learnt(cli: CLI, toy: Path, tmp_path: Path) -> None:
    """Full tuning of a tiny recurrent network lowers the loss of rows that repeat."""
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for split in ("train", "dev", "test"):
        write_jsonl(data / f"{split}.jsonl", rows(16))
    settings = ("train.lr=0.05", "train.max_steps=40", "train.epochs=60")
    given = ("--delta", "full", "--template", "cpm-2", *(f"--set={one}" for one in settings))
    words = ("--task", "lcqmc", "--data", data, "--backbone", toy, "--out", out, *given)
    code, _, error = cli(*words)
    assert code == 0, error
    (log,) = out.glob("*full*/log.jsonl")
    losses = [line["loss"] for line in map(json.loads, log.open()) if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("rule", [r for r in get_args(Scoring) if r != "verbaliser-sum"])
def test_every_scoring_rule_works_on_it(
    cli: CLI, toy: Path, data: Path, tmp_path: Path, rule: str
) -> None:
    template = "cpm-ant" if rule == "yes-logit" else "cpm-2"
    words = ("--scoring", rule, "--template", template, "--control", "none")
    settings = ("train.schedule=constant", "train.warmup=1", "train.lr=0.3", "train.max_steps=8")
    words += ("--delta", "full", *(f"--set={one}" for one in settings))
    run = tune(cli, toy, data, tmp_path, *words)
    record = read_record(run / "run.json")
    assert record.scoring == rule
    assert record.training is not None
    losses = [point.loss for point in record.training.curve]
    assert losses[-1] < losses[0] - 0.1, losses
