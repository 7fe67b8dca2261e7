"""`pretrain run`: what is logged and written, and going on from a trained backbone."""

import io
import json
import random
import re
from dataclasses import replace

import pytest
import torch
from pretrain_runs import (
    SETTINGS,
    events,
    make_corpus,
    poem,
    run,
    train_losses,
    write_config,
)

from cpm_tune.backbone.ant.checkpoint import load_weights
from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.ant.pretraining import PRETRAINING as ANT
from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.commands.cli import main
from cpm_tune.pretrain.evaluate import generate, perplexity_under
from cpm_tune.pretrain.prepare import prepare
from cpm_tune.pretrain.sources import TextSource
from cpm_tune.pretrain.train import Intervals

SMALL = ("--rows", 2, "--width", 64, "--shortest", 8, "--no-compile", "--log-steps", 1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def test_losses_fall_and_the_log_tells_both_objectives_and_all_sources(corpus, tmp_path):
    run(corpus, tmp_path / "out", replace(SETTINGS, steps=40))
    losses = train_losses(tmp_path / "out")
    assert losses[-1][1] < losses[0][1] - 1
    assert {k for row in losses for k in row[2]} == {"infilling", "generation"}
    assert {k for row in losses for k in row[3]} == {"verse", "other"}
    held = next(e for e in events(tmp_path / "out") if e["event"] == "heldout-all")["sources"]
    for parts in held.values():
        for part in parts.values():
            assert part["nats_per_character"] < part["unigram_nats_per_character"]
    assert any(e["event"] == "sample" for e in events(tmp_path / "out"))


def test_the_live_lines_name_objectives_sources_and_held_out_documents(corpus, tmp_path):
    said = []
    every = Intervals(log_steps=4, checkpoint_minutes=1e9, heldout_minutes=0)
    run(corpus, tmp_path / "out", replace(SETTINGS, steps=6), intervals=every, report=said.append)
    live = [line for line in said if "tokens/s" in line]
    assert len(live) == 2  # after 4 steps, and what is left at the end
    for line in live:
        assert all(name in line for name in ("infilling", "generation", "verse", "other"))
    assert sum("held out" in line for line in said) == 6 + 1


def test_a_corpus_without_held_out_documents_has_no_held_out_loss(corpus, tmp_path):
    path = tmp_path / "verse.jsonl"
    path.write_text(json.dumps({"text": poem(1)}, ensure_ascii=False))
    one = prepare([TextSource("verse", (path,), heldout=0)], corpus.vocabulary, tmp_path / "one")
    run(one, tmp_path / "out", replace(SETTINGS, weights={"verse": 1.0}, steps=2))
    assert "heldout-all" not in {e["event"] for e in events(tmp_path / "out")}
    assert events(tmp_path / "out")[-1]["event"] == "end"


def test_the_written_backbone_is_trained_half_precision_and_loads(corpus, tmp_path):
    model = run(corpus, tmp_path / "out")
    folder = open_folder(tmp_path / "out/backbone")
    assert folder.trained
    assert folder.format == "native"
    assert len(folder.tokenizer()) == corpus.about["vocab_size"]
    loaded = load_weights(folder, torch.float32)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value.half().float())
    modes = {path.stat().st_mode & 0o777 for path in folder.path.iterdir()}
    assert len(modes) == 1  # whoever may read one of its files may read all
    tokenizer = folder.tokenizer()
    objective = ANT.objective(loaded.config, tokenizer, width=64, shortest=8)
    text = generate(loaded, tokenizer, objective, "天地", n=3, length=5, seed=1)
    assert len(text) == 3
    assert all(len(t) <= 5 for t in text)


def test_a_model_without_any_sub_block_has_no_matrix_for_muon_and_trains(corpus, tmp_path, cli):
    config = write_config(tmp_path / "c.json", corpus, mask_modules=[[True, True]] * 2)
    start = ("--corpus", corpus.path, "--config", config, "--steps", 2)
    assert cli("pretrain", "run", "--out", tmp_path / "out", *start, *SMALL)[0] == 0
    assert [row[0] for row in train_losses(tmp_path / "out")] == [1, 2]


def test_training_goes_on_from_a_backbone_with_another_mix(corpus, tmp_path, cli):
    run(corpus, tmp_path / "first")
    start = ("--corpus", corpus.path, "--backbone", tmp_path / "first/backbone", "--steps", 2)
    out = ("--out", tmp_path / "on")
    assert cli("pretrain", "run", *out, *start, *SMALL, "--weight", "other=0")[0] == 0
    assert {k for row in train_losses(tmp_path / "on") for k in row[3]} == {"verse"}
    assert cli("pretrain", "run", *out, "--resume", "--steps", 3)[0] == 0
    assert [row[0] for row in train_losses(tmp_path / "on")] == [1, 2, 3]


def test_training_goes_on_with_new_sources_and_weights(corpus, tmp_path, cli):
    """New text, prepared with the trained backbone's own vocabulary."""
    run(corpus, tmp_path / "first")
    backbone = tmp_path / "first/backbone"
    for name, first in (("new one", 5000), ("new two", 6000)):
        text = "\n\n".join(poem(first + i) for i in range(60))
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    files = (tmp_path / "new one.txt", tmp_path / "new two.txt")
    made = ("--vocab", backbone / "vocab.txt", "--out", tmp_path / "new")
    assert cli("pretrain", "prepare", *files, *made, "--set", "new one.weight=3")[0] == 0
    start = ("--corpus", tmp_path / "new", "--backbone", backbone, "--steps", 8)
    weights = ("--weight", "new two=9", "--warmup", 1000)
    out = tmp_path / "on"
    code, said, _ = cli("pretrain", "run", "--out", out, *start, *SMALL, *weights)
    assert code == 0
    assert "new one, new two" in said
    first = events(out)[0]
    assert first["settings"]["weights"] == {"new one": 3.0, "new two": 9.0}
    trained, fresh = train_losses(out)[0][1], train_losses(tmp_path / "first")[0][1]
    assert trained < fresh - 0.5  # it starts from what the backbone has learnt


def test_a_run_folder_given_as_a_backbone_names_the_one_inside(corpus, tmp_path, cli):
    run(corpus, tmp_path / "first", replace(SETTINGS, steps=1))
    start = ("--corpus", corpus.path, "--backbone", tmp_path / "first", "--steps", 1, *SMALL)
    code, _, error = cli("pretrain", "run", "--out", tmp_path / "on", *start)
    assert (code, error.count("\n")) == (2, 1)
    assert f"give {tmp_path / 'first/backbone'}." in error


@pytest.mark.parametrize(
    ("words", "noted"),
    [
        (("--steps", 4), True),
        (("--steps", 4, "--warmup", 1), False),
        (("--steps", 10, "--warmup", 10), True),  # where the warm-up ends, the cosine has as well
        (("--seconds", 0.01), False),
    ],
)
def test_a_peak_that_the_warm_up_never_reaches_is_noted(corpus, tmp_path, cli, words, noted):
    config = write_config(tmp_path / "config.json", corpus)
    start = ("--corpus", corpus.path, "--config", config, *words, *SMALL)
    code, said, _ = cli("pretrain", "run", "--out", tmp_path / "out", *start)
    assert code == 0
    found = re.search(r"note: .* the learning rate reaches at most (\S+)\. .* --warmup\.", said)
    assert bool(found) is noted
    if found is not None:
        assert float(found[1]) == pytest.approx(
            max(e[4] for e in train_losses(tmp_path / "out")), 0.05
        )


def test_perplexity_under_a_backbone_is_lower_for_what_it_has_learnt(corpus, tmp_path):
    run(corpus, tmp_path / "out", replace(SETTINGS, steps=40))
    judge = perplexity_under(tmp_path / "out/backbone")
    shuffled = list(poem(5))
    random.Random(0).shuffle(shuffled)
    good, bad = judge([poem(5), "".join(shuffled)])
    assert good < bad


def test_the_commands_go_from_text_to_a_backbone(tmp_path, cli):
    text = tmp_path / "poems.txt"
    text.write_text("\n\n".join(f"{i}\n" + poem(i) for i in range(80)), encoding="utf-8")
    vocabulary, prepared, out = (tmp_path / n for n in ("vocab.txt", "prepared", "out"))
    # GB 2312 level 1 is always covered, hence the size
    assert cli("pretrain", "vocab", text, "--size", 4000, "--out", vocabulary)[0] == 0
    assert cli("pretrain", "prepare", text, "--vocab", vocabulary, "--out", prepared)[0] == 0
    shape = CPMAntConfig(4000, 16, 24, 1, 2, 8, prompt_types=3, prompt_length=2, segment_types=3)
    size = len(Tokenizer.from_file(vocabulary))
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**shape.to_dict(), "vocab_size": size}))
    arguments = ("--corpus", prepared, "--config", config, "--steps", 2, *SMALL)
    assert cli("pretrain", "run", "--out", out, *arguments)[0] == 0
    assert open_folder(out / "backbone").trained
    code, _, error = cli("pretrain", "run", "--out", out, *arguments)
    assert code == 2
    assert "already contains a run" in error


def test_training_goes_on_when_nobody_reads_what_it_says(corpus, tmp_path, monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    config = write_config(tmp_path / "config.json", corpus)
    words = ("--corpus", corpus.path, "--config", config, "--steps", 2, *SMALL)
    monkeypatch.setattr("sys.stdout", Closed())
    assert main(["pretrain", "run", "--out", str(tmp_path / "out"), *map(str, words)]) == 0
    monkeypatch.undo()
    assert len(train_losses(tmp_path / "out")) == 2


def test_an_unfinished_attempt_without_checkpoint_is_started_anew(corpus, tmp_path, cli):
    config = write_config(tmp_path / "config.json", corpus)
    start = ("--corpus", corpus.path, "--config", config, "--steps", 1, *SMALL)
    out = tmp_path / "out"
    assert cli("pretrain", "run", "--out", out, *start)[0] == 0
    (out / "checkpoint.pt").unlink()
    (out / "backbone").rename(tmp_path / "backbone")  # what a kill in the first minutes leaves
    code, _, error = cli("pretrain", "run", "--out", out, "--resume")
    assert (code, "without --resume" in error) == (2, True)
    assert cli("pretrain", "run", "--out", out, *start)[0] == 0
    assert [e["event"] for e in events(out)].count("start") == 1
