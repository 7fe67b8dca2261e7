"""scripts/train_tiny.py: from the corpus to a backbone by one line, which also resumes."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from conftest import REPOSITORY
from pretrain_runs import poem, write_documents

from cpm_tune.backbone.families import open_folder, pretrainings

sys.path.insert(0, str(REPOSITORY / "scripts"))
import train_tiny

SMALL = ("--no-compile", "--precision", "fp32", "--rows", "2", "--width", "32")
TINY = {
    "cpm-1-tiny": {"n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2},
    "cpm-2-tiny": {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2},
}
SIZES = {"cpm-1-tiny": 3_159_040, "cpm-2-tiny": 3_148_288}  # values of layers, about 3 million


@pytest.mark.parametrize("name", TINY)
def test_one_line_does_what_is_left_to_do(tmp_path, cli, monkeypatch, name):
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    write_documents(corpus / "verse.jsonl", [f"《{i}》\n" + poem(i) for i in range(60)])
    sources = {"verse": {"files": ["verse.jsonl"], "heldout": 0.2}}
    (corpus / "sources.json").write_text(json.dumps({"sources": sources}))
    tiny = train_tiny.TINY[name]
    size = {"cpm-1-tiny": "4800", "cpm-2-tiny": "4700"}[name]
    vocab = [size if word in ("11000", "7190") else word for word in tiny.vocab]
    vocab = ["0" if word == "500" else word for word in vocab]
    small = replace(
        tiny,
        vocab=tuple(vocab),
        config={"model_type": tiny.config["model_type"], **TINY[name]},
        run=("--steps", "2", *SMALL),
    )
    monkeypatch.setitem(train_tiny.TINY, name, small)
    done = []

    def pretrain(*words):
        done.append(words[0] if "--resume" not in words else "resume")
        code, _, error = cli("pretrain", *words)
        assert code == 0, error

    monkeypatch.setattr(train_tiny, "pretrain", pretrain)
    line = ["train_tiny.py", name, "--corpus", str(corpus), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", line)
    train_tiny.main()
    assert done == ["vocab", "prepare", "run"]
    assert open_folder(out / "run/backbone").trained
    monkeypatch.setattr(sys, "argv", [*line, "--steps", "3"])
    train_tiny.main()
    assert done[3:] == ["resume"]
    log = [json.loads(row) for row in (out / "run/log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 3


@pytest.mark.parametrize("name", TINY)
def test_the_models_have_the_size_that_they_should(tmp_path, name):
    """About as many values in layers as cpm-ant-tiny, and at most 14 MB in fp16."""
    tiny = train_tiny.TINY[name]
    kind = pretrainings()[tiny.vocab[tiny.vocab.index("--kind") + 1]]
    rows = int(tiny.vocab[tiny.vocab.index("--size") + 1])
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**tiny.config, "vocab_size": rows}))
    model = kind.random(kind.config(file), 1, torch.float32)
    layers = [layer for stack in model.layers for layer in stack]
    assert sum(p.numel() for layer in layers for p in layer.parameters()) == SIZES[name]
    assert 2 * sum(p.numel() for p in model.parameters()) < 14_000_000
