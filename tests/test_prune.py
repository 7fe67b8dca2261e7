"""Structural pruning: what is unneeded goes first, and what is written is what was measured."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from backbone_oracle import REFERENCE_SHAPE, VOCABULARY_TEXT, load
from conftest import CLI

from cpm_tune.backbone.ant.checkpoint import save_native
from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.opening import random_backbone
from cpm_tune.common.interrupt import NOTHING_WRITTEN
from cpm_tune.pretrain.prune import (
    at_random,
    importance,
    least,
    mean_loss,
    present,
    read_sample,
    skipped,
)

pytestmark = pytest.mark.usefixtures("one_thread")
MASKS = ((False, False), (True, False), (False, False), (False, True))
CONFIG = CPMAntConfig(**{**REFERENCE_SHAPE, "num_layers": 4, "mask_modules": MASKS})
IDLE = [(0, "ffn"), (2, "self_att")]  # write zeros


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = random_backbone(CONFIG, 5, torch.float32)
    with torch.no_grad():
        model.encoder.layers[0].ffn.ffn.w_out.weight.zero_()
        model.encoder.layers[2].self_att.self_attention.attention_out.weight.zero_()
    save_native(tmp_path / "whole", model, VOCABULARY_TEXT, trained=True)
    return tmp_path / "whole"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    words = ["今天天气不错，", "我爱北京，", "你大他小，", "上海不错。"]
    documents = ["".join(words[(n * k) % 4] for k in range(1, 5 + n)) for n in range(12)]
    (tmp_path / "text.txt").write_text("\n\n".join(documents), encoding="utf-8")
    return tmp_path / "text.txt"


def test_what_writes_nothing_has_no_importance_and_goes_first(folder, text):
    model, opened = load(folder).eval(), open_folder(folder)
    sample = read_sample(text, opened.tokenizer(), CONFIG, 8, 1)
    scores = importance(model, sample.measure)
    assert set(scores) == {block for own in present(CONFIG).values() for block in own}
    assert len(scores) == 6
    for block in IDLE:
        assert scores.pop(block) == 0
    assert all(abs(score) > 1e-6 for score in scores.values())
    scores |= dict.fromkeys(IDLE, min(0.0, *scores.values()) - 1)
    assert least(scores, {"self_att": 2, "ffn": 2}) == IDLE


def test_importance_is_the_growth_of_the_loss(folder, text):
    model, opened = load(folder).eval(), open_folder(folder)
    sample = read_sample(text, opened.tokenizer(), CONFIG, 8, 1)
    whole = mean_loss(model, sample.measure)
    scores = importance(model, sample.measure)
    block = (3, "self_att")
    model.encoder.layers[3].self_att.self_attention.attention_out.weight.data.zero_()
    assert mean_loss(model, sample.measure) - whole == pytest.approx(scores[block], abs=1e-6)


def test_the_halves_of_a_sample_are_apart_and_a_seed_draws_the_same(folder, text):
    tokenizer = open_folder(folder).tokenizer()
    first, same, other = (read_sample(text, tokenizer, CONFIG, 8, seed) for seed in (1, 1, 2))

    def rows(batches) -> list[list[int]]:
        width = max(batch.inputs[0].shape[1] for batch in batches)
        pad = tokenizer.pad
        return [r + [pad] * (width - len(r)) for b in batches for r in b.inputs[0].tolist()]

    assert rows(first.measure) == rows(same.measure)
    assert rows(first.measure) != rows(other.measure)
    texts = [{tuple(row[5:]) for row in rows(half)} for half in (first.measure, first.report)]
    assert len(rows(first.measure)) == len(rows(first.report)) == 4
    assert not texts[0] & texts[1]


def test_random_choices_have_the_size_and_are_told_apart_by_their_seed():
    keep = {"self_att": 1, "ffn": 2}
    choices = {tuple(at_random(CONFIG, keep, seed)) for seed in range(20)}
    assert len(choices) > 3
    for blocks in choices:
        assert [sum(kind == k for _, kind in blocks) for k in keep] == [2, 1]
        assert all(block in present(CONFIG)[block[1]] for block in blocks)


@pytest.mark.parametrize("to", ["native", "reference"])
def test_the_written_backbone_is_the_one_that_was_measured(folder, text, tmp_path, cli: CLI, to):
    words = ("--attention-layers", 2, "--ffn-layers", 1, "--text", text, "--pieces", 8, "--to", to)
    code, said, error = cli("prune", folder, tmp_path / "small", *words)
    assert code == 0, error
    small = open_folder(tmp_path / "small")
    assert small.format == to
    gone = [
        (layer, kind)
        for layer, (own, before) in enumerate(zip(small.config.mask_modules, MASKS, strict=True))
        for kind, now, was in zip(("self_att", "ffn"), own, before, strict=True)
        if now and not was
    ]
    assert len(gone) == 3
    sample = read_sample(text, small.tokenizer(), CONFIG, 8, 0)
    loss = mean_loss(load(small.path).eval(), sample.report)
    model = load(folder).eval()
    with skipped(model, gone):
        assert mean_loss(model, sample.report) == pytest.approx(loss, abs=1e-5)
    assert f"whole {mean_loss(model, sample.report):.4f}, pruned {loss:.4f}" in said
    for layer, kind in gone:
        (line,) = (line for line in said.splitlines() if line.startswith(f"{layer:5}  "))
        assert "- " in line, kind


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--attention-layers": 4}, "--attention-layers is 4, but the backbone has 3"),
        ({"--ffn-layers": -1}, "--ffn-layers is -1"),
        ({"--attention-layers": 3, "--ffn-layers": 3}, "there is nothing to remove"),
        ({"--attention-layers": 0, "--ffn-layers": 0}, "only the embeddings would remain"),
        ({"--to": "hf"}, "mask_modules"),
        ({"--text": "nowhere.txt"}, "does not exist"),
        ({"--memory-limit": "-1GB"}, "--memory-limit is '-1GB'"),
        ({"--pieces": 0}, "--pieces is 0"),
    ],
)
def test_what_cannot_be_is_one_sentence(folder, text, tmp_path, cli: CLI, change, said):
    words = {"--attention-layers": 2, "--ffn-layers": 2, "--text": text, **change}
    given = [word for pair in words.items() for word in pair]
    code, _, error = cli("prune", folder, tmp_path / "small", *given)
    assert code == 2
    assert said in error
    assert error.count("error:") == 1
    assert not (tmp_path / "small").exists()


def test_a_place_that_cannot_be_written_is_told_before_anything_is_measured(
    folder, text, tmp_path, cli: CLI
):
    words = ("--attention-layers", 2, "--ffn-layers", 2, "--text", text)
    for place in (Path(text) / "small", folder / "small"):
        code, said, error = cli("prune", folder, place, *words)
        assert (code, said, error.count("\n")) == (2, "", 1)
        assert f"{place}: " in error


def test_an_interruption_says_that_nothing_was_written(
    folder, text, tmp_path, cli: CLI, monkeypatch
):
    def stop(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("cpm_tune.pretrain.prune.importance", stop)
    monkeypatch.setattr("cpm_tune.backbone.ant.convert.pieces", stop)
    small = tmp_path / "small"
    words = ("--attention-layers", 2, "--ffn-layers", 2, "--text", text)
    for command in (("prune", folder, small, *words), ("convert", folder, small, "--to", "native")):
        code, _, error = cli(*command)
        assert (code, error) == (130, f"interrupted; {NOTHING_WRITTEN}.\n")
        assert not small.exists()
