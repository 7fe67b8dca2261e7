"""`pretrain run`: resuming, checkpoints, the written backbone, and what goes wrong."""

import json
import random
import resource
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from cpm_tune.backbone.checkpoint import load_weights, open_folder, random_backbone
from cpm_tune.backbone.config import CPMAntConfig
from cpm_tune.backbone.tokenizer import Tokenizer
from cpm_tune.cli import main
from cpm_tune.errors import UserError
from cpm_tune.pretrain import checkpoint
from cpm_tune.pretrain import train as training
from cpm_tune.pretrain.evaluate import generate, perplexity_under
from cpm_tune.pretrain.prepare import prepare
from cpm_tune.pretrain.sources import Source
from cpm_tune.pretrain.train import Intervals, Settings, train
from cpm_tune.pretrain.vocabulary import build_vocabulary

CHARACTERS = "天地玄黄宇宙洪荒日月盈昃辰宿列张"
EVERY_STEP = Intervals(log_steps=1, checkpoint_minutes=1e9, heldout_minutes=1e9)


def poem(seed):
    drawn = random.Random(seed)
    length = drawn.randrange(5, 8)
    lines = []
    for _ in range(4):
        start, stride = drawn.randrange(16), drawn.randrange(1, 16)
        lines.append("".join(CHARACTERS[(start + stride * j) % 16] for j in range(length)))
    return "，\n".join(lines) + "。"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    sources = []
    for name, first in (("verse", 0), ("other", 1000)):
        path = folder / f"{name}.jsonl"
        rows = [{"id": str(i), "text": f"{first + i}\n" + poem(first + i)} for i in range(60)]
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        sources.append(Source(name, (path,), heldout=0.2))
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(build_vocabulary(sources, 180)) + "\n")
    return prepare(sources, vocabulary, folder / "prepared")


def config_for(corpus, **other):
    shape = {
        "dim_model": 32,
        "dim_ff": 48,
        "num_layers": 2,
        "num_heads": 2,
        "dim_head": 16,
        "position_bias_num_buckets": 8,
        "position_bias_max_distance": 16,
        "prompt_types": 3,
        "prompt_length": 2,
        "segment_types": 3,
    }
    return CPMAntConfig(vocab_size=corpus.about["vocab_size"], **{**shape, **other})


SETTINGS = Settings(
    weights={"verse": 2.0, "other": 1.0},
    steps=8,
    rows=4,
    width=64,
    shortest=8,
    lr=1e-2,
    warmup=2,
    bf16=False,
    compiled=False,
)


def run(corpus, out, settings=SETTINGS, seed=1, **options):
    model = random_backbone(config_for(corpus), seed, torch.float32)
    tokenizer = Tokenizer.from_file(corpus.vocabulary)
    options.setdefault("intervals", EVERY_STEP)
    train(model, tokenizer, corpus, settings, out, **options)
    return model


def train_losses(out):
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [
        (r["step"], r["loss"], r["objectives"], r["sources"], r["lr"])
        for r in rows
        if r["event"] == "train"
    ]


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
def test_a_resumed_run_has_the_losses_and_weights_of_an_uninterrupted_one(
    corpus, tmp_path, optimiser, monkeypatch
):
    settings = replace(SETTINGS, optimiser=optimiser)
    whole = run(corpus, tmp_path / "whole", settings)
    stop_at(5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path / "parts", settings)
    monkeypatch.undo()
    resumed = run(corpus, tmp_path / "parts", settings, seed=99, resume=True)
    assert train_losses(tmp_path / "parts") == train_losses(tmp_path / "whole")
    assert len(train_losses(tmp_path / "whole")) == 8
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def stop_at(step, monkeypatch):
    """Interrupt a run when it asks for the batch of `step`."""
    original = training.Data.batch

    def batch(self, number):
        if number == step:
            raise KeyboardInterrupt
        return original(self, number)

    monkeypatch.setattr(training.Data, "batch", batch)


def test_losses_fall_and_the_log_tells_both_objectives_and_all_sources(corpus, tmp_path):
    run(corpus, tmp_path / "out", replace(SETTINGS, steps=40))
    losses = train_losses(tmp_path / "out")
    assert losses[-1][1] < losses[0][1] - 1
    assert {k for row in losses for k in row[2]} == {"infilling", "generation"}
    assert {k for row in losses for k in row[3]} == {"verse", "other"}
    events = [json.loads(x) for x in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    held = next(e for e in events if e["event"] == "heldout-all")["sources"]
    for parts in held.values():
        for part in parts.values():
            assert part["nats_per_character"] < part["unigram_nats_per_character"]
    assert any(e["event"] == "sample" for e in events)


def test_the_written_backbone_is_trained_half_precision_and_loads(corpus, tmp_path):
    model = run(corpus, tmp_path / "out")
    folder = open_folder(tmp_path / "out/backbone")
    assert folder.trained
    assert folder.layout == "native"
    assert len(folder.tokenizer()) == corpus.about["vocab_size"]
    loaded = load_weights(folder, torch.float32)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value.half().float())
    text = generate(loaded, folder.tokenizer(), "天地", n=3, length=5, seed=1)
    assert len(text) == 3
    assert all(len(t) <= 5 for t in text)


def test_training_goes_on_from_a_backbone_with_another_mix(corpus, tmp_path, capsys):
    run(corpus, tmp_path / "first")
    arguments = ["--corpus", str(corpus.path), "--backbone", str(tmp_path / "first/backbone")]
    arguments += ["--steps", "2", "--rows", "2", "--width", "64", "--shortest", "8"]
    arguments += ["--weight", "other=0", "--no-compile", "--log-steps", "1"]
    assert main(["pretrain", "run", "--out", str(tmp_path / "on"), *arguments]) == 0
    assert {k for row in train_losses(tmp_path / "on") for k in row[3]} == {"verse"}
    assert main(["pretrain", "run", "--out", str(tmp_path / "on"), "--resume", "--steps", "3"]) == 0
    assert [row[0] for row in train_losses(tmp_path / "on")] == [1, 2, 3]
    assert main(["pretrain", "run", "--out", str(tmp_path / "on"), "--resume", "--lr", "1"]) == 2
    assert "--lr cannot change" in capsys.readouterr().err


def test_perplexity_under_a_backbone_is_lower_for_what_it_has_learnt(corpus, tmp_path):
    run(corpus, tmp_path / "out", replace(SETTINGS, steps=40))
    judge = perplexity_under(tmp_path / "out/backbone")
    shuffled = list(poem(5))
    random.Random(0).shuffle(shuffled)
    good, bad = judge([poem(5), "".join(shuffled)])
    assert good < bad


def test_a_run_by_seconds_keeps_its_training_time_in_the_checkpoint(corpus, tmp_path):
    out = tmp_path / "out"
    run(corpus, out, replace(SETTINGS, steps=0, seconds=0.3))
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    before = state["progress"]
    assert before["seconds"] >= 0.3
    run(corpus, out, replace(SETTINGS, steps=0, seconds=before["seconds"] + 0.1), resume=True)
    after = torch.load(out / "checkpoint.pt", weights_only=True)["progress"]
    assert after["step"] > before["step"]
    assert after["seconds"] >= before["seconds"] + 0.1


# --- what goes wrong ----------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_with_step_sources_and_checkpoint(
    corpus, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    run(corpus, out, replace(SETTINGS, steps=2))
    monkeypatch.setattr(
        training.TargetLosses,
        "__call__",
        lambda self, rows: (
            rows.ids.sum() * (self.model.input_embedding.weight.sum() * float("nan"))
        ),
    )
    monkeypatch.setattr(training.TargetLosses, "fresh", False, raising=False)
    with pytest.raises(UserError, match=r"step 3: the loss is nan .*(verse|other).*checkpoint\.pt"):
        run(corpus, out, resume=True)
    assert torch.load(out / "checkpoint.pt", weights_only=True)["progress"]["step"] == 2


def test_a_checkpoint_of_another_config_or_corpus_is_refused(corpus, tmp_path):
    out = tmp_path / "out"
    run(corpus, out)
    model = random_backbone(config_for(corpus, dim_ff=64), 1, torch.float32)
    tokenizer = Tokenizer.from_file(corpus.vocabulary)
    with pytest.raises(UserError, match="another config"):
        train(model, tokenizer, corpus, SETTINGS, out, resume=True)
    with pytest.raises(UserError, match="another settings"):
        run(corpus, out, replace(SETTINGS, seed=2), resume=True)
    (out / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        run(corpus, out, resume=True)


FULL_DISK = """
import resource, sys, torch
from pathlib import Path
from cpm_tune.errors import UserError
from cpm_tune.pretrain import checkpoint
model, path = torch.nn.Linear(300, 300), Path(sys.argv[1])
checkpoint.save(path, model, [], {"step": 1}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.save(path, model, [], {"step": 2}, {})
except UserError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no file size limit here")
def test_the_last_good_checkpoint_survives_a_full_disk(tmp_path):
    path = tmp_path / "checkpoint.pt"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True
    )
    assert "step 2: the checkpoint could not be written" in done.stdout
    assert f"the last good one is kept in {path}" in done.stdout
    assert checkpoint.load(path, {})["progress"]["step"] == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 99}, "vocab_size is 99"),
        ({"prompt_types": 2}, "2 prompt_types"),
        ({"prompt_length": 300}, "more than its soft prompt"),
    ],
)
def test_a_config_that_does_not_fit_is_one_sentence(corpus, tmp_path, capsys, change, message):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config_for(corpus, **{}).to_dict() | change))
    arguments = ["--corpus", str(corpus.path), "--config", str(file), "--steps", "1"]
    assert main(["pretrain", "run", "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_vocabulary_without_specials_is_refused(tmp_path, capsys):
    (tmp_path / "v.txt").write_text("天\n地\n")
    (tmp_path / "a.txt").write_text("天地" * 20)
    arguments = ["--vocab", str(tmp_path / "v.txt"), "--out", str(tmp_path / "out")]
    assert main(["pretrain", "prepare", str(tmp_path / "a.txt"), *arguments]) == 2
    assert "special entry" in capsys.readouterr().err


def test_the_commands_go_from_text_to_a_backbone(tmp_path, capsys):
    text = tmp_path / "poems.txt"
    text.write_text("\n\n".join(f"{i}\n" + poem(i) for i in range(80)), encoding="utf-8")
    vocabulary, prepared, out = (str(tmp_path / n) for n in ("vocab.txt", "prepared", "out"))
    # GB 2312 level 1 is always covered, hence the size
    assert main(["pretrain", "vocab", str(text), "--size", "4000", "--out", vocabulary]) == 0
    assert main(["pretrain", "prepare", str(text), "--vocab", vocabulary, "--out", prepared]) == 0
    shape = CPMAntConfig(4000, 16, 24, 1, 2, 8, prompt_types=3, prompt_length=2, segment_types=3)
    size = len(Tokenizer.from_file(tmp_path / "vocab.txt"))
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**shape.to_dict(), "vocab_size": size}))
    arguments = ["--corpus", prepared, "--config", str(config), "--steps", "2", "--rows", "2"]
    arguments += ["--width", "64", "--shortest", "8", "--no-compile", "--precision", "fp32"]
    assert main(["pretrain", "run", "--out", out, *arguments]) == 0
    assert open_folder(tmp_path / "out/backbone").trained
    assert main(["pretrain", "run", "--out", out, *arguments]) == 2
    assert "a run is there already" in capsys.readouterr().err
